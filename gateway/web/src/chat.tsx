/** One session: its header, conversation, approvals and composer. */
import type * as Ably from 'ably';
import type { UIMessage } from 'ai';
import { type ReactNode, type RefObject, useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { useActiveTurns, useClientTransport, useView } from 'selfhost-transport/react';
import { announce } from './announcer';
import { Approvals, waitingIn } from './approvals';
import { Composer, type Composed, type ComposerHandle } from './composer';
import { type Connected, useConnection } from './connection';
import { Conversation, type RowActions } from './conversation';
import { useFramed } from './frames';
import { Header } from './header';
import { Offline } from './offline';
import { type Row, rowsOf, textOf } from './rows';
import { readTo, type Sessions } from './sessions';
import { reportUnlessShown, runningTurns, type Transport, useAnnouncedTurns, useProblem, useStopping, type View } from './turns';

/** Messages fetched at first, and by each look at older ones. */
const FIRST = 30;
const OLDER = 50;

interface Props {
  session: string;
  client: Ably.Realtime;
  me: string;
  sessions: Sessions;
  onMenu: () => void;
  /** Closes the list of chats, if it lies over the page; says whether it did. */
  onEscape: () => boolean;
  onRunning: (running: boolean) => void;
}

export function Chat({ session, client, me, sessions, onMenu, onEscape, onRunning }: Props): ReactNode {
  const shown = useRef<readonly Row[]>([]);
  const { problem, guard, report, dismiss } = useProblem();
  const { transport } = useClientTransport<UIMessage>({ onError: (error) => reportUnlessShown(error, transport, report) });
  const view = useView<UIMessage>({ limit: FIRST });
  const active = useActiveTurns();
  const connected = useConnection(client.connection);
  const [failed, setFailed] = useState<ReadonlySet<string>>(new Set());
  const rows = useFramed(() => {
    shown.current = rowsOf({ ...view, failed }, shown.current);
    return shown.current;
  });

  const turns = useMemo(() => runningTurns(transport, active, rows, me), [transport, active, rows, me]);
  const mine = turns.filter((turn) => turn.mine).length;
  useEffect(() => onRunning(turns.length > 0), [turns.length, onRunning]);
  const { stopping, stopMine, stop } = useStopping(transport);
  const listed = useListed(sessions, session, client, rows, view.hasOlder);
  useAnnouncedTurns(transport, listed);

  const composer = useRef<ComposerHandle>(null);
  const [editing, setEditing] = useState<string>();
  const latest = useLatest({ view, transport, guard, stop });
  const deliver = useCallback(async (message: UIMessage, replaces?: string): Promise<void> => {
    const { view: now } = latest.current;
    try {
      await (replaces ? now.edit(replaces, message) : now.send(message));
    } catch {
      // It is shown at the message.
      setFailed((before) => new Set(before).add(message.id));
      announce('The message was not sent', { urgent: true });
    }
  }, [latest]);
  const actions = useRowActions(latest, composer, setEditing, deliver);

  const submit = async ({ text, files, interrupts }: Composed): Promise<void> => {
    setEditing(undefined);
    if (interrupts && !(await guard(stopMine()))) return composer.current?.write(text, files);
    await deliver(messageOf(text, files), editing);
  };
  const cancelEdit = (): void => {
    setEditing(undefined);
    composer.current?.write('');
  };
  useEscape(() => {
    if (onEscape()) return;
    if (editing) cancelEdit();
    else if (mine > 0) void guard(stopMine());
  });
  const editLast = (): void => {
    const last = rows.findLast(({ kind, sending, turn }) => kind === 'question' && sending === 'sent' && (!turn?.clientId || turn.clientId === me));
    if (last) actions.edit(last);
  };
  const waiting = useMemo(() => waitingIn(rows), [rows]);
  const loadOlder = useCallback(() => void latest.current.view.loadOlder(OLDER), [latest]);
  return (
    <div className="chat">
      <Header session={session} sessions={sessions} connected={connected} turns={turns} onMenu={onMenu} onStop={actions.stop} onStopMine={() => void guard(stopMine())} />
      <Conversation
        rows={rows}
        client={me}
        actions={actions}
        connected={connected.state === 'connected'}
        hasOlder={view.hasOlder}
        loading={view.loading || (rows.length === 0 && connected.state !== 'connected' && !connected.before)}
        loadOlder={loadOlder}
        onExample={(text) => composer.current?.write(text)}
      />
      <section className="bottom" aria-label="Your message">
        <Approvals waiting={waiting} onApprove={actions.approve} />
        <Problems connected={connected} client={client} rows={rows} problem={problem ?? view.loadError?.message} onDismiss={dismiss} />
        <Composer
          ref={composer}
          session={session}
          editing={editing !== undefined}
          busy={mine > 0}
          stopping={stopping}
          limit={maxMessageSize(client)}
          onSubmit={(composed) => void submit(composed)}
          onStop={() => void guard(stopMine())}
          onCancelEdit={cancelEdit}
          onEditLast={editLast}
        />
      </section>
    </div>
  );
}

interface ProblemsProps {
  connected: Connected;
  client: Ably.Realtime;
  rows: readonly Row[];
  problem: string | undefined;
  onDismiss: () => void;
}

function Problems({ connected, client, rows, problem, onDismiss }: ProblemsProps): ReactNode {
  const unsent = rows.filter(({ kind, sending }) => kind === 'question' && sending === 'pending').length;
  return (
    <>
      <Offline connected={connected} unsent={unsent} onRetry={() => client.connection.connect()} />
      {problem && connected.state === 'connected' && (
        <div className="notice error" role="alert">
          <span className="grow">{problem}</span>
          <button type="button" className="link" onClick={onDismiss}>
            Close
          </button>
        </div>
      )}
    </>
  );
}

function messageOf(text: string, files: Composed['files']): UIMessage {
  return { id: crypto.randomUUID(), role: 'user', parts: [...files, ...(text ? [{ type: 'text' as const, text }] : [])] };
}

/** The most bytes of a message: what the gateway said when it accepted the connection. */
function maxMessageSize(client: Ably.Realtime): number {
  return (client as unknown as { options: { maxMessageSize?: number } }).options.maxMessageSize ?? 65_536;
}

function useLatest<T>(value: T): RefObject<T> {
  const latest = useRef(value);
  useEffect(() => {
    latest.current = value;
  });
  return latest;
}

interface Latest {
  view: View;
  transport: Transport;
  guard: (action: Promise<unknown>) => Promise<boolean>;
  stop: (turnId: string) => Promise<void>;
}

/** The actions of rows: the same functions in every render, so that no row is drawn again because of them. */
function useRowActions(
  latest: RefObject<Latest>,
  composer: RefObject<ComposerHandle | null>,
  setEditing: (id: string) => void,
  deliver: (message: UIMessage) => Promise<void>,
): RowActions {
  return useMemo(() => {
    const guarded = (action: (now: Latest) => Promise<unknown>): void => void latest.current.guard(action(latest.current));
    const discard = (row: Row): void => latest.current.transport.tree.delete(row.id);
    return {
      edit: (row) => {
        const message = row.message as UIMessage;
        setEditing(row.id);
        composer.current?.write(textOf(message), message.parts.filter((part) => part.type === 'file'));
      },
      regenerate: (id) => guarded(({ view }) => view.regenerate(id)),
      approve: (id, toolCallId, approved) => guarded(({ view }) => view.update(id, [{ type: 'tool-approval-response', toolCallId, approved }])),
      stop: (turnId) => guarded(({ stop }) => stop(turnId)),
      select: (id, version) => latest.current.view.select(id, version),
      retry: (row) => {
        discard(row);
        void deliver({ ...(row.message as UIMessage), id: crypto.randomUUID() });
      },
      discard,
    };
  }, [latest, composer, setEditing, deliver]);
}

/** Keeps the list of sessions: title, time, and how far this one is read. Gives what to call when an answer has ended. */
function useListed(sessions: Sessions, session: string, client: Ably.Realtime, rows: readonly Row[], hasOlder: boolean): () => void {
  const first = rows.find(({ kind, sending }) => kind === 'question' && sending === 'sent');
  const question = first?.message && textOf(first.message);
  const questions = rows.filter(({ kind }) => kind === 'question').length;
  const before = useRef(0);
  useEffect(() => {
    if (question === undefined) return;
    const known = sessions.get().find(({ id }) => id === session);
    // Messages that are loaded are no news; those that come while the session is open are.
    const isNew = !known || (before.current > 0 && questions === before.current + 1);
    before.current = questions;
    sessions.opened(session, hasOlder && known ? known.title : question, isNew ? Date.now() : known.at);
  }, [sessions, session, question, questions, hasOlder]);
  const read = useCallback(() => {
    sessions.read(session, readTo(client.channels.get(session)));
  }, [sessions, session, client]);
  useEffect(() => {
    const hidden = (): void => void (document.visibilityState === 'hidden' && read());
    document.addEventListener('visibilitychange', hidden);
    window.addEventListener('pagehide', read);
    return () => {
      read();
      document.removeEventListener('visibilitychange', hidden);
      window.removeEventListener('pagehide', read);
    };
  }, [read]);
  return read;
}

/** Escape works from anywhere on the page. */
function useEscape(action: () => void): void {
  const latest = useLatest(action);
  useEffect(() => {
    const listen = (event: KeyboardEvent): void => {
      if (event.key === 'Escape' && !event.isComposing) latest.current();
    };
    window.addEventListener('keydown', listen);
    return () => window.removeEventListener('keydown', listen);
  }, [latest]);
}
