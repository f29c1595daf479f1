/** Draws the parts of one answer: text, reasoning, tool calls, files and sources. */
import { type UIMessage, getToolName, isToolUIPart } from 'ai';
import type { ReactNode } from 'react';

type Part = UIMessage['parts'][number];

interface Props {
  message: UIMessage;
  /** The answer is still being written: a caret follows its last text. */
  live: boolean;
  onApprove: (toolCallId: string, approved: boolean) => void;
}

export function Parts({ message, live, onApprove }: Props): ReactNode {
  const last = message.parts.length - 1;
  return (
    <div className="bubble" data-testid="answer-body">
      {message.parts.map((part, index) => (
        <OnePart key={index} part={part} live={live && index === last} onApprove={onApprove} />
      ))}
    </div>
  );
}

function OnePart({ part, live, onApprove }: { part: Part; live: boolean; onApprove: Props['onApprove'] }): ReactNode {
  if (isToolUIPart(part)) return <Tool part={part} onApprove={onApprove} />;
  switch (part.type) {
    case 'text':
      return (
        <div className={live ? 'text live' : 'text'} data-testid="text">
          {part.text}
        </div>
      );
    case 'reasoning':
      return (
        <details className="reasoning" open={live}>
          <summary>{live ? 'Thinking…' : 'Thoughts'}</summary>
          <div className="text">{part.text}</div>
        </details>
      );
    case 'file':
      return <Link href={part.url} text={part.filename ?? part.mediaType} />;
    case 'source-url':
      return <Link href={part.url} text={part.title ?? part.url} />;
    default:
      return null;
  }
}

/** A link, if it is one that a page may offer: an agent's text decides where it leads. */
function Link({ href, text }: { href: string; text: string }): ReactNode {
  if (!/^(https?:|data:image\/)/i.test(href)) return <span className="text">{text}</span>;
  return (
    <a className="text" href={href} target="_blank" rel="noreferrer">
      {text}
    </a>
  );
}

type ToolPart = Extract<Part, { toolCallId: string }>;

const TOOL_STATES: Record<ToolPart['state'], string> = {
  'input-streaming': 'preparing…',
  'input-available': 'running…',
  'approval-requested': 'asks for your consent',
  'approval-responded': 'allowed',
  'output-available': 'done',
  'output-error': 'failed',
  'output-denied': 'denied',
};

function Tool({ part, onApprove }: { part: ToolPart; onApprove: Props['onApprove'] }): ReactNode {
  const input = 'input' in part ? part.input : undefined;
  return (
    <div className="tool">
      <div className="tool-head">
        <strong>{getToolName(part)}</strong> <span>{TOOL_STATES[part.state]}</span>
      </div>
      {input !== undefined && <pre>{JSON.stringify(input, null, 2)}</pre>}
      {part.state === 'output-available' && <pre>{JSON.stringify(part.output, null, 2)}</pre>}
      {part.state === 'output-error' && <pre>{part.errorText}</pre>}
      {part.state === 'approval-requested' && (
        <div className="consent">
          <button type="button" className="primary" onClick={() => onApprove(part.toolCallId, true)}>
            Allow
          </button>
          <button type="button" onClick={() => onApprove(part.toolCallId, false)}>
            Deny
          </button>
        </div>
      )}
    </div>
  );
}
