/** The conversation: one row per message, in the order every device sees. */
import type { RunInfo, ViewHandle } from '@ably/ai-transport/react';
import type { VercelInput } from '@ably/ai-transport/vercel';
import type { UIMessage } from 'ai';
import { type ReactNode, useEffect, useRef } from 'react';
import { Parts } from './parts';
import { type Row, rowsOf, textOf } from './rows';
import type { Turns } from './turns';

interface Props {
  view: ViewHandle<VercelInput, UIMessage>;
  turns: Turns;
  client: string;
  guard: (action: Promise<unknown>) => Promise<boolean>;
  onEdit: (target: { id: string; text: string }) => void;
}

/** Distance from the end, in pixels, within which new text keeps the page scrolled to the end. */
const NEAR_END = 120;

export function Conversation({ view, turns, client, guard, onEdit }: Props): ReactNode {
  const rows = rowsOf(view.messages, view.runOf);
  const list = useStickToEnd();
  const lastRow = new Map<string, string>();
  for (const row of rows) if (row.run && row.kind !== 'question') lastRow.set(row.run.runId, row.id);
  return (
    <main className="conversation" ref={list}>
      <div className="column">
        {view.hasOlder && rows.length > 0 && (
          <button type="button" className="quiet older" disabled={view.loading} onClick={() => void view.loadOlder()}>
            {view.loading ? 'Loading…' : 'Show older'}
          </button>
        )}
        {rows.length === 0 && (view.loading ? <p className="welcome">Loading…</p> : <Welcome />)}
        {rows.map((row) => {
          const closes = row.run !== undefined && lastRow.get(row.run.runId) === row.id;
          const rowProps = { row, view, turns, client, guard, onEdit, closes };
          return row.kind === 'question' ? <Question key={row.id} {...rowProps} /> : <Answer key={row.id} {...rowProps} />;
        })}
      </div>
    </main>
  );
}

function Welcome(): ReactNode {
  return (
    <p className="welcome">
      Say something. Out of the box a scripted model answers: it quotes you, or follows orders such as{' '}
      <code>script: tokens=200 rate=20</code>. Open this address in a second tab to see both in step.
    </p>
  );
}

/** Keep the end in sight while text grows, unless the reader has scrolled up. */
function useStickToEnd(): React.RefObject<HTMLElement | null> {
  const list = useRef<HTMLElement>(null);
  const near = useRef(true);
  useEffect(() => {
    const element = list.current;
    if (!element) return;
    const note = (): void => {
      near.current = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END;
    };
    element.addEventListener('scroll', note, { passive: true });
    return () => element.removeEventListener('scroll', note);
  }, []);
  useEffect(() => {
    if (near.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  });
  return list;
}

interface RowProps extends Props {
  row: Row;
  /** The row is the last of its turn, and so the place that says how the turn stands. */
  closes: boolean;
}

function Question({ row, view, onEdit, client }: RowProps): ReactNode {
  if (row.kind !== 'question') return null;
  const author = row.run?.clientId;
  return (
    <article className="row question" data-testid="question">
      {author && author !== client && <div className="author">{author}</div>}
      <div className="bubble">{textOf(row.message)}</div>
      <footer className="under">
        <Branches view={view} id={row.id} />
        <button
          type="button"
          className="quiet reveal"
          onClick={() => onEdit({ id: row.id, text: textOf(row.message) })}
        >
          Edit
        </button>
      </footer>
    </article>
  );
}

function Answer({ row, view, turns, guard, closes }: RowProps): ReactNode {
  const run = row.run;
  const active = run?.status === 'active';
  const message = row.kind === 'answer' ? row.message : null;
  const approve = (toolCallId: string, approved: boolean): void => {
    if (run) void guard(turns.approve(row.id, run.runId, toolCallId, approved));
  };
  return (
    <article className="row answer" data-testid="answer" data-status={run?.status ?? 'waiting'}>
      {row.kind === 'answer' && row.replyTo && <div className="reply-to">to “{row.replyTo}”</div>}
      {message && <Parts message={message} live={active && closes} onApprove={approve} />}
      <footer className="under">
        {(closes || !run) && <Status run={run} silent={message === null} />}
        {active && closes && (
          <button type="button" className="quiet" onClick={() => void guard(turns.stop(run.runId))}>
            Stop this one
          </button>
        )}
        {message && <Branches view={view} id={row.id} />}
        {message && run && !active && closes && (
          <button type="button" className="quiet reveal" onClick={() => void guard(turns.regenerate(row.id))}>
            Again
          </button>
        )}
      </footer>
    </article>
  );
}

/** How a turn stands, in words; a finished one needs none. `silent`: it has produced nothing visible. */
function Status({ run, silent }: { run: RunInfo | undefined; silent: boolean }): ReactNode {
  if (!run) return <span className="label waiting">waiting for the agent…</span>;
  switch (run.status) {
    case 'active':
      return silent ? <span className="label working" aria-label="working" /> : null;
    case 'suspended':
      return <span className="label">waiting for an answer to the tool call</span>;
    case 'cancelled':
      return <span className="label cancelled">{silent ? 'Stopped before the first word' : 'Stopped'}</span>;
    case 'error':
      return <span className="label failed">Failed: {`${run.error.message} (${run.error.code})`}</span>;
    default:
      return silent ? <span className="label">No words</span> : null;
  }
}

/** Arrows between the versions of a message: edits of a question, repeated answers. */
function Branches({ view, id }: { view: Props['view']; id: string }): ReactNode {
  const branch = view.branchSelection(id);
  if (!branch.hasSiblings) return null;
  const count = branch.siblings.length;
  return (
    <span className="branches">
      <button type="button" className="quiet" disabled={branch.index === 0} onClick={() => branch.select(branch.index - 1)} aria-label="Previous version">
        ‹
      </button>
      {branch.index + 1}/{count}
      <button type="button" className="quiet" disabled={branch.index === count - 1} onClick={() => branch.select(branch.index + 1)} aria-label="Next version">
        ›
      </button>
    </span>
  );
}
