/** The bar on top: which chat, how the connection is, what is running, and the address for others. */
import type * as Ably from 'ably';
import { type ReactNode, useEffect, useSyncExternalStore } from 'react';
import { sharedUrl } from './config';
import type { Connected } from './connection';
import { CopyButton } from './copy';
import { Icon } from './icons';
import type { Sessions } from './sessions';
import { toggleTheme } from './theme';
import { type RunningTurn, TurnsPanel } from './turns-panel';

const WORDS: Record<Ably.ConnectionState, string> = {
  initialized: 'Connecting…',
  connecting: 'Connecting…',
  connected: 'Connected',
  disconnected: 'Reconnecting…',
  suspended: 'Offline',
  closing: 'Closed',
  closed: 'Closed',
  failed: 'Refused',
};

interface Props {
  session: string;
  sessions: Sessions;
  connected: Connected;
  turns: readonly RunningTurn[];
  onMenu: () => void;
  onStop: (turnId: string) => void;
  onStopMine: () => void;
}

export function Header({ session, sessions, connected, turns, onMenu, onStop, onStopMine }: Props): ReactNode {
  const list = useSyncExternalStore(sessions.subscribe, sessions.get);
  const title = list.find(({ id }) => id === session)?.title ?? 'New chat';
  useEffect(() => {
    document.title = title;
  }, [title]);
  const { state, before } = connected;
  const words = state === 'connecting' && before ? WORDS.disconnected : WORDS[state];
  return (
    <header className="bar">
      <button type="button" className="quiet round only-narrow" onClick={onMenu} aria-label="Chats" aria-controls="sidebar">
        <Icon name="menu" />
      </button>
      <h1 title={session}>{title}</h1>
      <TurnsPanel turns={turns} onStop={onStop} onStopMine={onStopMine} />
      <span className="chip connection" data-testid="connection" data-state={state} role="status">
        <i className="dot" />
        <span>{words}</span>
      </span>
      <CopyButton text={sharedUrl(session)} label="Share: copy the address of this chat" shown="Share" icon="share" />
      <button type="button" className="quiet round" onClick={toggleTheme} aria-label="Light or dark" title="Light or dark">
        <Icon name="theme" />
      </button>
    </header>
  );
}
