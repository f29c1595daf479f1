/**
 * The sessions of this person, as this browser knows them. Nothing is written to the gateway for the list: a session is
 * in it once the person has opened it and it has a message.
 */
import type * as Ably from 'ably';
import { shortened } from './chat-state';
import { local } from './storage';
import { Store } from './store';

export interface SessionEntry {
  id: string;
  title: string;
  /** The person has given the title. */
  named: boolean;
  /** When something last happened in it, ms since the epoch. */
  at: number;
  /** Where the person has read to: the channel's serial. */
  seen?: string;
  unread: boolean;
}

const MOST = 200;

/** How far a channel has been heard. */
export function readTo(channel: Ably.RealtimeChannel): string | undefined {
  // There in every build of ably-js, though not in its types.
  const { properties } = channel as unknown as { properties: { attachSerial?: string; channelSerial?: string } };
  return properties.channelSerial ?? properties.attachSerial;
}

export class Sessions {
  readonly #name: string;
  readonly #list: Store<readonly SessionEntry[]>;

  constructor(client: string) {
    this.#name = `sessions:${location.pathname}:${client}`;
    this.#list = new Store<readonly SessionEntry[]>(this.#read());
    // Another tab has changed it.
    window.addEventListener('storage', ({ key }) => {
      if (key === this.#name) this.#list.set(this.#read());
    });
  }

  /** Newest first. */
  get = (): readonly SessionEntry[] => this.#list.get();

  subscribe = (listener: () => void): (() => void) => this.#list.subscribe(listener);

  /** Note that a session has messages, the first known of which is `question`. */
  opened(id: string, question: string, newestAt: number): void {
    const known = this.#find(id);
    const title = known?.named ? known.title : shortened(question, 80) || 'Files';
    if (known && known.title === title && known.at >= newestAt) return;
    this.#put({ ...known, id, title, named: known?.named ?? false, at: Math.max(known?.at ?? 0, newestAt), unread: false });
  }

  rename(id: string, title: string): void {
    const known = this.#find(id);
    const entry = known ?? { id, at: Date.now(), unread: false };
    if (title.trim()) this.#put({ ...entry, title: title.trim(), named: true });
  }

  remove(id: string): void {
    this.#keep(this.#read().filter((entry) => entry.id !== id));
  }

  /** The person has read all up to `serial`. */
  read(id: string, serial: string | undefined): void {
    const known = this.#find(id);
    if (!known || (known.seen === serial && !known.unread)) return;
    this.#put({ ...known, unread: false, ...(serial !== undefined && { seen: serial }) });
  }

  /** Something new is in a session that is not open. */
  news(id: string, at?: number): void {
    const known = this.#find(id);
    if (known && (!known.unread || at !== undefined)) this.#put({ ...known, unread: true, at: Math.max(known.at, at ?? 0) });
  }

  titleOf(id: string): string | undefined {
    return this.#find(id)?.title;
  }

  #find(id: string): SessionEntry | undefined {
    return this.get().find((entry) => entry.id === id);
  }

  #put(entry: SessionEntry): void {
    this.#keep([entry, ...this.#read().filter(({ id }) => id !== entry.id)]);
  }

  #keep(entries: SessionEntry[]): void {
    const list = entries.sort((one, other) => other.at - one.at).slice(0, MOST);
    local.set(this.#name, JSON.stringify(list));
    this.#list.set(list);
  }

  #read(): SessionEntry[] {
    try {
      return JSON.parse(local.get(this.#name) ?? '[]') as SessionEntry[];
    } catch {
      return [];
    }
  }
}
