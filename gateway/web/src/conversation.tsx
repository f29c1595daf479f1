/** The conversation: one row per message, in the order every device sees. */
import type { UIMessage } from 'ai';
import { memo, type ReactNode, useCallback } from 'react';
import { isOpen, shortened } from './chat-state';
import { CopyButton } from './copy';
import { Icon } from './icons';
import { File, Parts } from './parts';
import { type Row, textOf } from './rows';
import { useScrolling } from './scrolling';

/** What a reader can do with a row. The functions are the same ones for the life of the session. */
export interface RowActions {
  edit: (row: Row) => void;
  regenerate: (id: string) => void;
  approve: (id: string, toolCallId: string, approved: boolean) => void;
  stop: (turnId: string) => void;
  select: (id: string, version: number) => void;
  /** Send a message again that the gateway did not take. */
  retry: (row: Row) => void;
  discard: (row: Row) => void;
}

interface Props {
  rows: readonly Row[];
  client: string;
  actions: RowActions;
  connected: boolean;
  hasOlder: boolean;
  loading: boolean;
  loadOlder: () => void;
  onExample: (text: string) => void;
}

export const Conversation = memo(function Conversation(props: Props): ReactNode {
  const { rows, client, actions, connected, hasOlder, loading, loadOlder, onExample } = props;
  const { list, column, awayFromEnd, toEnd } = useScrolling(rows[0]?.id, hasOlder && !loading, loadOlder);
  return (
    <div className="reading">
      {/* The announcer says what is new: a live region here would read every word as it comes. */}
      <main className="conversation" ref={list} tabIndex={-1} id="conversation">
        <div className="column" ref={column} role="log" aria-live="off" aria-label="Conversation">
          {loading && rows.length > 0 && <p className="note">Loading earlier messages…</p>}
          {!hasOlder && rows.length > 5 && <p className="note">This is where the conversation begins.</p>}
          {rows.length === 0 && (loading ? <p className="note">Loading…</p> : <Welcome onExample={onExample} />)}
          {rows.map((row) =>
            row.kind === 'question' ? (
              <Question key={row.id} row={row} client={client} actions={actions} connected={connected} />
            ) : (
              <Answer key={row.id} row={row} actions={actions} />
            ),
          )}
        </div>
      </main>
      {awayFromEnd && rows.length > 0 && (
        <button type="button" className="newest" onClick={toEnd} aria-label="Go to the newest message">
          <Icon name="down" /> Newest
        </button>
      )}
    </div>
  );
});

const EXAMPLES = ['What can I do here?', 'script: tokens=300 rate=20', 'script: approve=1 tokens=20 rate=10'];

function Welcome({ onExample }: { onExample: (text: string) => void }): ReactNode {
  return (
    <div className="welcome">
      <h2>What would you like to talk about?</h2>
      <p>Answers keep coming while you reload, change the device or lose the network. You can stop one at any time, or write on meanwhile.</p>
      <div className="examples">
        {EXAMPLES.map((text) => (
          <button key={text} type="button" onClick={() => onExample(text)}>
            {text}
          </button>
        ))}
      </div>
    </div>
  );
}

interface RowProps {
  row: Row;
  actions: RowActions;
}

const Question = memo(function Question({ row, actions, client, connected }: RowProps & { client: string; connected: boolean }): ReactNode {
  const message = row.message as UIMessage;
  const text = textOf(message);
  const author = row.turn?.clientId;
  const foreign = Boolean(author) && author !== client;
  return (
    <article className="row question" id={`row-${row.id}`} data-testid="question" data-sending={row.sending}>
      <h2 className="unseen">{foreign ? `${author} wrote` : 'You wrote'}</h2>
      {foreign && <div className="author" aria-hidden="true">{author}</div>}
      <div className="bubble">
        {message.parts.map((part, index) => (part.type === 'file' ? <File key={index} part={part} /> : null))}
        {text && <div className="plain">{text}</div>}
      </div>
      <footer className="under">
        {row.sending !== 'sent' && <Unsent row={row} actions={actions} connected={connected} />}
        <Versions row={row} select={actions.select} />
        {row.sending === 'sent' && (
          <span className="reveal">
            <button type="button" className="quiet" onClick={() => actions.edit(row)} aria-label="Edit" title="Edit">
              <Icon name="pencil" />
            </button>
            <CopyButton text={text} label="Copy message" />
          </span>
        )}
      </footer>
    </article>
  );
});

function Unsent({ row, actions, connected }: RowProps & { connected: boolean }): ReactNode {
  if (row.sending === 'pending') return <span className="label waiting">{connected ? 'Sending…' : 'Not sent yet. It is sent when the connection is back.'}</span>;
  return (
    <>
      <span className="label failed">Not sent</span>
      <button type="button" className="link" onClick={() => actions.retry(row)}>
        Try again
      </button>
      <button type="button" className="link" onClick={() => actions.discard(row)}>
        Discard
      </button>
    </>
  );
}

const Answer = memo(function Answer({ row, actions }: RowProps): ReactNode {
  const { turn, message, id, text } = row;
  const approve = useCallback((toolCallId: string, approved: boolean) => actions.approve(id, toolCallId, approved), [actions, id]);
  const open = isOpen(turn);
  const live = open && turn?.status === 'active' && row.closes;
  return (
    <article className="row answer" id={`row-${id}`} data-testid="answer" data-status={turn?.status ?? 'waiting'} aria-busy={live}>
      <h2 className="unseen">Answer</h2>
      {row.replyTo && <div className="reply-to">To “{shortened(row.replyTo)}”</div>}
      {message && (
        <div className="body" data-testid="answer-body">
          <Parts parts={message.parts} live={live} open={open} onApprove={approve} />
        </div>
      )}
      <footer className="under">
        {row.closes && <Status row={row} silent={message === undefined} />}
        {row.closes && open && turn && (
          <button type="button" className="quiet" onClick={() => actions.stop(turn.turnId)}>
            <Icon name="stop" /> <span>Stop this one</span>
          </button>
        )}
        <Versions row={row} select={actions.select} />
        {message && !open && row.closes && (
          <span className={turn?.status === 'error' ? undefined : 'reveal'}>
            {text && <CopyButton text={text} label="Copy answer" />}
            {turn && (
              <button type="button" className="quiet" onClick={() => actions.regenerate(id)} title="Answer again">
                <Icon name="again" /> <span>{turn.status === 'error' ? 'Try again' : 'Again'}</span>
              </button>
            )}
          </span>
        )}
      </footer>
    </article>
  );
});

/** How a turn stands, in words; a finished one needs none. `silent`: it has produced nothing visible. */
function Status({ row, silent }: { row: Row; silent: boolean }): ReactNode {
  switch (row.turn?.status) {
    case undefined:
    case 'waiting':
      return <span className="label waiting">Waiting for the agent…</span>;
    case 'active':
      return silent ? <span className="label working" role="img" aria-label="working" /> : null;
    case 'suspended':
      return <span className="label waiting">Paused until the tool call is answered</span>;
    case 'cancelled':
      return <span className="label stopped">{silent ? 'Stopped before the first word' : 'Stopped'}</span>;
    case 'error':
      return <span className="label failed">Failed: {row.turn.error?.message ?? 'the agent gave no reason'}</span>;
    default:
      return silent ? <span className="label">The answer is empty</span> : null;
  }
}

/** Arrows between the versions of a message: edits of a question, repeated answers. */
function Versions({ row, select }: { row: Row; select: RowActions['select'] }): ReactNode {
  const { id, version, versions } = row;
  if (versions < 2) return null;
  return (
    <span className="versions" role="group" aria-label="Versions">
      <button type="button" className="quiet" disabled={version === 0} onClick={() => select(id, version - 1)} aria-label="Previous version">
        <Icon name="left" />
      </button>
      <span aria-label={`Version ${version + 1} of ${versions}`} role="img">
        {version + 1}/{versions}
      </span>
      <button type="button" className="quiet" disabled={version === versions - 1} onClick={() => select(id, version + 1)} aria-label="Next version">
        <Icon name="right" />
      </button>
    </span>
  );
}
