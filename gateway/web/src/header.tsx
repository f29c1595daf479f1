/** The bar on top: which session, who I am, how the connection is, light or dark. */
import type { RunInfo } from '@ably/ai-transport/react';
import type * as Ably from 'ably';
import { type ReactNode, useEffect, useState } from 'react';
import { type Place, sessionUrl } from './config';

interface Props {
  place: Place;
  connection: Ably.Connection;
  open: RunInfo[];
  onForget?: () => void;
}

const WORDS: Record<Ably.ConnectionState, string> = {
  initialized: 'connecting…',
  connecting: 'connecting…',
  connected: 'connected',
  disconnected: 'reconnecting…',
  suspended: 'offline, retrying',
  closing: 'closed',
  closed: 'closed',
  failed: 'refused',
};

const THEME = 'theme';

/** Use the theme chosen earlier in this browser; without one, the system's. */
export function applySavedTheme(): void {
  const saved = localStorage.getItem(THEME);
  if (saved) document.documentElement.dataset['theme'] = saved;
}

function toggleTheme(): void {
  const root = document.documentElement;
  const dark = root.dataset['theme'] ? root.dataset['theme'] === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset['theme'] = dark ? 'light' : 'dark';
  localStorage.setItem(THEME, root.dataset['theme']);
}

function useConnection(connection: Ably.Connection): { state: Ably.ConnectionState; reason: Ably.ErrorInfo | null } {
  const read = () => ({ state: connection.state, reason: connection.errorReason ?? null });
  const [status, setStatus] = useState(read);
  useEffect(() => {
    const update = (): void => setStatus({ state: connection.state, reason: connection.errorReason ?? null });
    update();
    connection.on(update);
    return () => connection.off(update);
  }, [connection]);
  return status;
}

/** How many turns are open, by whose they are. */
function summary(open: RunInfo[], me: string): string {
  const mine = open.filter((run) => run.clientId === me).length;
  const others = open.length - mine;
  return [mine && `${mine} of yours`, others && `${others} of others`].filter(Boolean).join(', ');
}

export function Header({ place, connection, open, onForget }: Props): ReactNode {
  const { state, reason } = useConnection(connection);
  const [copied, setCopied] = useState(false);
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(sessionUrl(place.session));
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return (
    <header className="bar">
      <div className="names">
        <strong title="Session">{place.session}</strong>
        <span title="Client id of this tab">you are {place.client}</span>
      </div>
      <div className="tools">
        {open.length > 0 && (
          <span className="chip" data-testid="open-turns">
            answering: {summary(open, place.client)}
          </span>
        )}
        <span className="chip" data-testid="connection" data-state={state} role="status" title={reason?.message}>
          <i className="dot" />
          {WORDS[state]}
        </span>
        {navigator.clipboard && (
          <button type="button" className="quiet wide" onClick={() => void copy()} title="Copy the address for another device">
            {copied ? 'Copied' : 'Share'}
          </button>
        )}
        <a className="quiet" href={sessionUrl()} title="Start another session">
          New
        </a>
        {onForget && (
          <button type="button" className="quiet" onClick={onForget} title="Use another token URL">
            Sign out
          </button>
        )}
        <button type="button" className="quiet" onClick={toggleTheme} aria-label="Light or dark" title="Light or dark">
          ◐
        </button>
      </div>
      {reason && state !== 'connected' && state !== 'connecting' && (
        <p className="reason" role="alert">
          {reason.message} ({reason.code})
        </p>
      )}
    </header>
  );
}
