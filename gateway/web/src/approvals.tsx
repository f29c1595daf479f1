/** Approvals that wait. One whose card is scrolled away is asked for above the composer, so that it is always in sight. */
import { getToolName, isToolUIPart } from './tool-parts';
import { type ReactNode, useEffect, useRef, useSyncExternalStore } from 'react';
import { announce } from './announcer';
import { isOpen } from './chat-state';
import { Icon } from './icons';
import type { Row } from './rows';
import { Store } from './store';

export interface Waiting {
  rowId: string;
  toolCallId: string;
  tool: string;
}

export function waitingIn(rows: readonly Row[]): Waiting[] {
  return rows.flatMap((row) => {
    if (row.kind !== 'answer' || !isOpen(row.turn)) return [];
    const asking = row.message?.parts.filter(isToolUIPart).filter((part) => part.state === 'approval-requested') ?? [];
    return asking.map((part) => ({ rowId: row.id, toolCallId: part.toolCallId, tool: getToolName(part) }));
  });
}

/** Which cards' buttons are on the screen. */
class CardsInSight {
  readonly #shown = new Store<ReadonlySet<string>>(new Set());
  readonly subscribe = this.#shown.subscribe;
  readonly get = this.#shown.get;

  watch(toolCallId: string, element: Element): () => void {
    const note = (inSight: boolean): void => {
      const shown = new Set(this.get());
      if (inSight ? shown.has(toolCallId) : !shown.has(toolCallId)) return;
      if (inSight) shown.add(toolCallId);
      else shown.delete(toolCallId);
      this.#shown.set(shown);
    };
    const observer = new IntersectionObserver((entries) => note(entries.at(-1)?.isIntersecting ?? false), { threshold: 1 });
    observer.observe(element);
    return () => {
      observer.disconnect();
      note(false);
    };
  }
}

export const cardsInSight = new CardsInSight();

interface Props {
  waiting: readonly Waiting[];
  onApprove: (rowId: string, toolCallId: string, approved: boolean) => void;
}

export function Approvals({ waiting, onApprove }: Props): ReactNode {
  const shown = useSyncExternalStore(cardsInSight.subscribe, cardsInSight.get);
  const announced = useRef(new Set<string>());
  useEffect(() => {
    for (const { toolCallId, tool } of waiting) {
      if (announced.current.has(toolCallId)) continue;
      announced.current.add(toolCallId);
      announce(`The tool ${tool} needs your approval`, { urgent: true });
    }
  }, [waiting]);
  const hidden = waiting.filter(({ toolCallId }) => !shown.has(toolCallId));
  return hidden.map(({ rowId, toolCallId, tool }) => (
    <section key={toolCallId} className="dock" aria-label={`Approval of ${tool}`} data-testid="approval-dock">
      <Icon name="tool" />
      <span className="grow">
        <strong>{tool}</strong> needs your approval
      </span>
      <button type="button" className="quiet" onClick={() => document.getElementById(`row-${rowId}`)?.scrollIntoView({ block: 'center' })}>
        Show
      </button>
      <button type="button" className="primary" onClick={() => onApprove(rowId, toolCallId, true)}>
        Allow
      </button>
      <button type="button" onClick={() => onApprove(rowId, toolCallId, false)}>
        Deny
      </button>
    </section>
  ));
}
