/** The list of this person's sessions: search, new, rename; which are running, and which have something new. */
import { type FormEvent, type ReactNode, useDeferredValue, useState, useSyncExternalStore } from 'react';
import { sessionUrl } from './config';
import { Icon } from './icons';
import type { SessionEntry, Sessions } from './sessions';
import type { Store } from './store';

interface Props {
  sessions: Sessions;
  current: string;
  running: Store<ReadonlySet<string>>;
  /** The session that is open has answers running. */
  currentRuns: boolean;
  open: boolean;
  onOpen: (session: string) => void;
  onNew: () => void;
  onClose: () => void;
  children: ReactNode;
}

export function Sidebar({ sessions, current, running, currentRuns, open, onOpen, onNew, onClose, children }: Props): ReactNode {
  const list = useSyncExternalStore(sessions.subscribe, sessions.get);
  const runs = useSyncExternalStore(running.subscribe, running.get);
  const [words, setWords] = useState('');
  const wanted = useDeferredValue(words.trim().toLowerCase());
  const found = list.filter(({ title, id }) => title.toLowerCase().includes(wanted) || id.toLowerCase().includes(wanted));
  return (
    <>
      <nav className={open ? 'sidebar open' : 'sidebar'} aria-label="Chats" id="sidebar">
        <div className="sidebar-top">
          <button type="button" className="new" onClick={onNew}>
            <Icon name="plus" /> New chat
          </button>
          <button type="button" className="quiet round only-narrow" onClick={onClose} aria-label="Close the list of chats">
            <Icon name="close" />
          </button>
        </div>
        <label className="search">
          <Icon name="search" />
          <input type="search" value={words} onChange={(event) => setWords(event.target.value)} placeholder="Search" aria-label="Search chats" />
        </label>
        <ul className="sessions">
          {found.map((entry) => (
            <Item
              key={entry.id}
              entry={entry}
              current={entry.id === current}
              runs={entry.id === current ? currentRuns : runs.has(entry.id)}
              sessions={sessions}
              onOpen={onOpen}
            />
          ))}
        </ul>
        {found.length === 0 && <p className="note">{wanted ? 'No chat has these words in its title.' : 'Your chats will be listed here.'}</p>}
        {children}
      </nav>
      {open && <div className="shade" onClick={onClose} />}
    </>
  );
}

interface ItemProps {
  entry: SessionEntry;
  current: boolean;
  runs: boolean;
  sessions: Sessions;
  onOpen: (session: string) => void;
}

function Item({ entry, current, runs, sessions, onOpen }: ItemProps): ReactNode {
  const [renaming, setRenaming] = useState(false);
  if (renaming) return <Rename entry={entry} sessions={sessions} onDone={() => setRenaming(false)} />;
  const unread = entry.unread && !current;
  const marks = [runs && 'an answer is running', unread && 'something new'].filter(Boolean).join(', ');
  return (
    <li className="session" data-testid="session" data-running={runs} data-unread={unread}>
      <a
        href={sessionUrl(entry.id)}
        aria-current={current ? 'page' : undefined}
        onClick={(event) => {
          if (event.metaKey || event.ctrlKey || event.shiftKey) return;
          event.preventDefault();
          onOpen(entry.id);
        }}
      >
        {(runs || unread) && <i className={runs ? 'mark runs' : 'mark'} />}
        <span className="title">{entry.title}</span>
        {marks && <span className="unseen">({marks})</span>}
        <time dateTime={new Date(entry.at).toISOString()}>{ago(entry.at)}</time>
      </a>
      <button type="button" className="quiet reveal" onClick={() => setRenaming(true)} aria-label={`Rename ${entry.title}`} title="Rename">
        <Icon name="pencil" />
      </button>
    </li>
  );
}

function Rename({ entry, sessions, onDone }: { entry: SessionEntry; sessions: Sessions; onDone: () => void }): ReactNode {
  const [title, setTitle] = useState(entry.title);
  const done = (event?: FormEvent): void => {
    event?.preventDefault();
    sessions.rename(entry.id, title);
    onDone();
  };
  return (
    <li className="session">
      <form onSubmit={done}>
        <input
          value={title}
          autoFocus
          aria-label="Title of the chat"
          onChange={(event) => setTitle(event.target.value)}
          onFocus={(event) => event.target.select()}
          onBlur={() => done()}
          onKeyDown={(event) => {
            if (event.key !== 'Escape') return;
            event.stopPropagation();
            onDone();
          }}
        />
      </form>
    </li>
  );
}

function ago(at: number): string {
  const minutes = Math.floor((Date.now() - at) / 60_000);
  if (minutes < 1) return 'now';
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h`;
  return new Date(at).toLocaleDateString(undefined, { day: 'numeric', month: 'short' });
}
