import type { ErrorInfo, InboundMessage } from 'ably';
import { Listeners } from './emitter.js';

/** Which turns a cancel or a wait means. Of several fields the first of this order counts. */
export type CancelFilter = { turnId: string } | { own: true } | { clientId: string } | { all: true };

export type TurnEndReason = 'complete' | 'cancelled' | 'error';

export type TurnEvent =
  | { type: 'x-ably-turn-start'; turnId: string; clientId: string }
  | { type: 'x-ably-turn-end'; turnId: string; clientId: string; reason: TurnEndReason };

/** How a turn stands. `waiting`: no agent has begun it. `error` says why one failed. */
export interface TurnInfo {
  turnId: string;
  /** Whose turn it is; empty for an anonymous client. */
  clientId: string;
  status: 'waiting' | 'active' | 'suspended' | TurnEndReason;
  error?: ErrorInfo;
}

/** A turn without a terminal as `GET /v1/sessions/{session}/turns` tells it. */
export interface ListedTurn {
  turnId: string;
  agent?: string | null;
  owner?: string | null;
}

interface Turn {
  turnId: string;
  owner: string | undefined;
  agent: string | undefined;
  /** Whether listeners heard of its start. */
  shown: boolean;
}

const REMEMBERED_ENDS = 5_000;

/** The turns of a session that have no terminal yet: running, waiting and suspended ones, of all clients. */
export class Turns {
  readonly #active = new Map<string, Turn>();
  readonly #ended = new Set<string>();
  readonly #started = new Set<string>();
  readonly #asked = new Set<string>();
  readonly #changed = new Listeners<void>();
  readonly #events = new Listeners<TurnEvent>();
  /** Maps that were given out: they follow, so that a closure of an earlier render sees the turns of now. */
  #maps: WeakRef<Map<string, Set<string>>>[] = [];
  #map: Map<string, Set<string>> | undefined;

  onChange(listener: () => void): () => void {
    return this.#changed.add(listener);
  }

  onEvent(listener: (event: TurnEvent) => void): () => void {
    return this.#events.add(listener);
  }

  /** Follow a message of the channel. History may be observed late: what has ended stays ended. */
  observe(message: InboundMessage): void {
    const headers = transportHeaders(message);
    const turnId = headers['run-id'];
    if (!turnId) return;
    const owner = headers['run-client-id'] || undefined;
    switch (message.name) {
      case 'ai-run-queued':
      case 'ai-run-suspend':
        return this.#add({ turnId, owner, agent: undefined, shown: false }, false);
      case 'ai-run-start':
      case 'ai-run-resume':
        return this.#add({ turnId, owner, agent: message.clientId, shown: false }, true);
      case 'ai-run-end':
        return this.#end(turnId, (headers['run-reason'] ?? 'complete') as TurnEndReason, owner);
    }
  }

  /** A turn that this client asks for. The gateway may not know it before `accepted` is called. */
  expect(turnId: string, owner: string | undefined): void {
    this.#asked.add(turnId);
    this.#add({ turnId, owner, agent: undefined, shown: false }, false);
  }

  accepted(turnId: string): void {
    this.#asked.delete(turnId);
  }

  /** The gateway did not take what would have started it. */
  forget(turnId: string): void {
    this.#asked.delete(turnId);
    if (this.#active.delete(turnId)) this.#notify();
  }

  has(turnId: string): boolean {
    return this.#active.has(turnId);
  }

  hasStarted(turnId: string): boolean {
    return this.#started.has(turnId);
  }

  ownerOf(turnId: string): string | undefined {
    return this.#active.get(turnId)?.owner;
  }

  /** The active turns that the gateway knows of. */
  ids(): string[] {
    return [...this.#active.keys()].filter((turnId) => !this.#asked.has(turnId));
  }

  /** Take over a list of the gateway. `before`: the turns that were known when it was asked for. */
  reconcile(listed: readonly ListedTurn[], before: readonly string[]): string[] {
    const open = new Set(listed.map((turn) => turn.turnId));
    for (const { turnId, owner, agent } of listed) {
      this.#add({ turnId, owner: owner ?? undefined, agent: agent ?? undefined, shown: false }, false);
    }
    return before.filter((turnId) => !open.has(turnId) && this.#active.has(turnId));
  }

  /** A terminal that was learned otherwise than from the channel. */
  endedElsewhere(turnId: string, reason: TurnEndReason): void {
    this.#end(turnId, reason, undefined);
  }

  /** Ids of active turns that a filter means, for client `me`. */
  matching(filter: Partial<{ turnId: string; own: boolean; clientId: string; all: boolean }>, me: string | undefined): string[] {
    if (filter.turnId !== undefined) return this.#active.has(filter.turnId) ? [filter.turnId] : [];
    const owner = filter.own ? me : filter.clientId;
    const turns = [...this.#active.values()];
    if (!filter.own && filter.clientId === undefined) return filter.all ? turns.map((turn) => turn.turnId) : [];
    return owner === undefined ? [] : turns.filter((turn) => turn.owner === owner).map((turn) => turn.turnId);
  }

  /** Resolves when all of `turnIds` have ended (or were refused), or with `false` after `patience` ms. */
  whenEnded(turnIds: readonly string[], patience?: number): Promise<boolean> {
    const left = new Set(turnIds);
    const known = new Set(turnIds.filter((turnId) => this.#active.has(turnId)));
    const isOver = (turnId: string) => this.#ended.has(turnId) || (known.has(turnId) && !this.#active.has(turnId));
    return new Promise((resolve) => {
      let off = () => {};
      let timer: ReturnType<typeof setTimeout> | undefined;
      const finish = (value: boolean) => {
        clearTimeout(timer);
        off();
        resolve(value);
      };
      if (patience !== undefined) timer = setTimeout(() => finish(false), patience);
      const check = () => {
        for (const turnId of left) if (isOver(turnId)) left.delete(turnId);
        if (left.size === 0) finish(true);
      };
      off = this.#changed.add(check);
      check();
    });
  }

  /** Turn ids by client id. A turn stands under its owner's id and under its agent's. The same object until a change. */
  map(): Map<string, Set<string>> {
    if (!this.#map) {
      this.#map = this.#fill(new Map());
      this.#maps.push(new WeakRef(this.#map));
    }
    return this.#map;
  }

  #fill(map: Map<string, Set<string>>): Map<string, Set<string>> {
    map.clear();
    for (const { turnId, owner, agent } of this.#active.values()) {
      for (const clientId of new Set([owner, agent])) {
        if (clientId === undefined) continue;
        const ids = map.get(clientId);
        if (ids) ids.add(turnId);
        else map.set(clientId, new Set([turnId]));
      }
    }
    return map;
  }

  #add(turn: Turn, starts: boolean): void {
    if (this.#ended.has(turn.turnId)) return;
    const known = this.#active.get(turn.turnId);
    const now = known ?? turn;
    const changes = !known || (turn.owner ?? now.owner) !== now.owner || (turn.agent ?? now.agent) !== now.agent;
    now.owner = turn.owner ?? now.owner;
    now.agent = turn.agent ?? now.agent;
    this.#active.set(turn.turnId, now);
    if (starts) this.#started.add(turn.turnId);
    if (changes) this.#notify();
    if (starts && !now.shown) {
      now.shown = true;
      this.#events.emit({ type: 'x-ably-turn-start', turnId: turn.turnId, clientId: now.owner ?? '' });
    }
  }

  #end(turnId: string, reason: TurnEndReason, owner: string | undefined): void {
    this.#asked.delete(turnId);
    if (this.#ended.has(turnId)) return;
    this.#ended.add(turnId);
    if (this.#ended.size > REMEMBERED_ENDS) this.#ended.delete(this.#ended.values().next().value!);
    this.#started.delete(turnId);
    const turn = this.#active.get(turnId);
    this.#active.delete(turnId);
    this.#notify();
    // A terminal of old history is no news.
    if (turn) this.#events.emit({ type: 'x-ably-turn-end', turnId, clientId: turn.owner ?? owner ?? '', reason });
  }

  #notify(): void {
    this.#map = undefined;
    this.#maps = this.#maps.filter((reference) => {
      const map = reference.deref();
      if (map) this.#fill(map);
      return map !== undefined;
    });
    this.#changed.emit();
  }
}

export function transportHeaders(message: { extras?: unknown }): Record<string, string> {
  const extras = message.extras as { ai?: { transport?: Record<string, string> } } | undefined;
  return extras?.ai?.transport ?? {};
}
