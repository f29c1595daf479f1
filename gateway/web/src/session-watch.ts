/** Listens to the sessions of the list that are not open: which of them have answers running, and which have news. */
import type * as Ably from 'ably';
import { readTo, type Sessions } from './sessions';
import { Store } from './store';

/** So many of the newest are listened to. */
const WATCHED = 12;
/** The longest a session waits to be opened for its channel to be let go. */
const PATIENCE_MS = 1_000;

const STARTS = ['ai-run-start', 'ai-run-resume', 'ai-run-queued'];

interface Watched {
  channel: Ably.RealtimeChannel;
  listener: (message: Ably.InboundMessage) => void;
}

export class SessionWatch {
  readonly #client: Ably.Realtime;
  readonly #sessions: Sessions;
  readonly #watched = new Map<string, Watched>();
  readonly #turns = new Map<string, Set<string>>();
  readonly running = new Store<ReadonlySet<string>>(new Set());

  constructor(client: Ably.Realtime, sessions: Sessions) {
    this.#client = client;
    this.#sessions = sessions;
  }

  /** Listen to all but the session that is open. */
  watchAllBut(open: string): void {
    const wanted = this.#sessions.get().slice(0, WATCHED).map(({ id }) => id);
    for (const id of wanted) if (id !== open && !this.#watched.has(id)) void this.#watch(id);
    for (const id of [...this.#watched.keys()]) if (!wanted.includes(id)) void this.letGo(id);
  }

  /**
   * Stop listening to a session, and detach: who opens it attaches again, so that its history joins what it hears.
   * Resolves when that is done, at the latest after a second.
   */
  async letGo(id: string): Promise<void> {
    const known = this.#watched.get(id);
    if (!known) return;
    this.#watched.delete(id);
    this.#turns.delete(id);
    this.#notify();
    known.channel.unsubscribe(known.listener);
    const late = new Promise<void>((resolve) => setTimeout(resolve, PATIENCE_MS));
    await Promise.race([known.channel.detach().catch(() => {}), late]);
  }

  async #watch(id: string): Promise<void> {
    const channel = this.#client.channels.get(id);
    const listener = (message: Ably.InboundMessage): void => this.#hear(id, message);
    this.#watched.set(id, { channel, listener });
    try {
      await channel.subscribe(listener);
      // Subscribing does not attach a channel that the session's own transport has used.
      await channel.attach();
      if (!this.#watched.has(id)) return;
      const seen = this.#sessions.get().find((entry) => entry.id === id)?.seen;
      if (seen !== undefined && seen !== readTo(channel)) this.#sessions.news(id);
      await this.#readTurns(id);
    } catch {
      // A session that this person may no longer read has no marks.
    }
  }

  async #readTurns(id: string): Promise<void> {
    const answer = await this.#client.request<{ turns: { turnId: string }[] }>('GET', `/v1/sessions/${encodeURIComponent(id)}/turns`, 4);
    if (!answer.success || !this.#watched.has(id)) return;
    this.#turns.set(id, new Set(answer.items[0]?.turns.map(({ turnId }) => turnId)));
    this.#notify();
  }

  #hear(id: string, message: Ably.InboundMessage): void {
    const { name, extras, timestamp } = message;
    const turnId = (extras as { ai?: { transport?: Record<string, string> } } | undefined)?.ai?.transport?.['run-id'];
    const ends = name === 'ai-run-end';
    if (!turnId || !(ends || STARTS.includes(name ?? ''))) return;
    const turns = this.#turns.get(id) ?? new Set();
    if (ends) turns.delete(turnId);
    else turns.add(turnId);
    this.#turns.set(id, turns);
    this.#sessions.news(id, timestamp);
    this.#notify();
  }

  #notify(): void {
    this.running.set(new Set([...this.#turns].filter(([, turns]) => turns.size > 0).map(([id]) => id)));
  }
}
