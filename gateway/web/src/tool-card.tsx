/** One call of a tool: what it is, how it stands, what went in and out; and the question whether it may run. */
import { getToolName } from './tool-parts';
import { type ReactNode, useEffect, useRef } from 'react';
import { Icon } from './icons';
import type { Part } from './rows';
import { cardsInSight } from './approvals';

export type ToolPart = Extract<Part, { toolCallId: string }>;

const STATES: Record<ToolPart['state'], string> = {
  'input-streaming': 'preparing…',
  'input-available': 'running…',
  'approval-requested': 'needs your approval',
  'approval-responded': 'allowed',
  'output-available': 'done',
  'output-error': 'failed',
  'output-denied': 'denied',
};

function stateOf(part: ToolPart, open: boolean): string {
  if (part.state === 'approval-responded' && part.approval?.approved === false) return STATES['output-denied'];
  if (!open && ['input-streaming', 'input-available', 'approval-requested'].includes(part.state)) return 'not run';
  return STATES[part.state];
}

interface Props {
  part: ToolPart;
  open: boolean;
  onApprove: (toolCallId: string, approved: boolean) => void;
}

export function ToolCard({ part, open, onApprove }: Props): ReactNode {
  const asks = open && part.state === 'approval-requested';
  const input = 'input' in part ? part.input : undefined;
  return (
    <section className="tool" data-state={part.state} aria-label={`Tool ${getToolName(part)}`}>
      <header>
        <Icon name="tool" />
        <strong>{getToolName(part)}</strong>
        <span className="tool-state">{stateOf(part, open)}</span>
        {asks && <Approve part={part} onApprove={onApprove} />}
      </header>
      {/* Who is to allow a call reads first what it would do. */}
      {input !== undefined && <Folded title="Input" value={input} open={asks} />}
      {part.state === 'output-available' && <Folded title="Result" value={part.output} />}
      {part.state === 'output-error' && <p className="failed">{part.errorText}</p>}
    </section>
  );
}

function Approve({ part, onApprove }: { part: ToolPart; onApprove: Props['onApprove'] }): ReactNode {
  const buttons = useRef<HTMLSpanElement>(null);
  useEffect(() => (buttons.current ? cardsInSight.watch(part.toolCallId, buttons.current) : undefined), [part.toolCallId]);
  return (
    <span className="approve" ref={buttons}>
      <button type="button" className="primary" onClick={() => onApprove(part.toolCallId, true)}>
        Allow
      </button>
      <button type="button" onClick={() => onApprove(part.toolCallId, false)}>
        Deny
      </button>
    </span>
  );
}

function Folded({ title, value, open = false }: { title: string; value: unknown; open?: boolean }): ReactNode {
  return (
    <details className="json" open={open}>
      <summary>{title}</summary>
      <pre tabIndex={0}>{typeof value === 'string' ? value : JSON.stringify(value, null, 2)}</pre>
    </details>
  );
}
