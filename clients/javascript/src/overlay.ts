import { Listeners } from './emitter.js';
import { updateInput } from './inputs.js';
import type { AnyCodec, MessageNode, Pair, UpdateEvent } from './types.js';

/** Behind the last message, whichever that is. */
export const END = 'end of the branch';

interface LocalNode<TMessage> {
  node: MessageNode<TMessage>;
  /** The id of the message that it stands behind; undefined: before all others. */
  after: string | undefined;
}

interface LocalFields {
  headers?: Record<string, string>;
  serial?: string | undefined;
}

interface Replacement<TMessage> {
  message: TMessage;
  headers: Record<string, string> | undefined;
  /** Whether a change in the session ends it. */
  untilChanged: boolean;
}

/** An event that is shown here already, and goes out with the next send. */
export interface StagedEvent {
  msgId: string;
  event: UpdateEvent;
}

/** What only this client sees: messages put before, beside or in the place of the session's own. */
export class Overlay<TMessage> {
  readonly changed = new Listeners<void>();
  readonly #replaced = new Map<string, Replacement<TMessage>>();
  #staged: StagedEvent[] = [];
  #sending: StagedEvent[] = [];
  readonly #local = new Map<string, LocalNode<TMessage>>();
  readonly #deleted = new Set<string>();

  /** Messages from elsewhere, as one chain before the session's own; each until the session has it. */
  seed(messages: readonly TMessage[]): void {
    let after: string | undefined;
    for (const message of messages) {
      const msgId = idOf(message) ?? crypto.randomUUID();
      this.#local.set(msgId, { node: localNode(msgId, message, after), after });
      after = msgId;
    }
  }

  /** Put messages behind `after`, as a chain. */
  add(messages: readonly TMessage[], ids: readonly string[], after: string | undefined, more: LocalFields = {}): void {
    for (const [index, message] of messages.entries()) {
      const msgId = ids[index]!;
      this.#deleted.delete(msgId);
      this.#local.set(msgId, { node: localNode(msgId, message, after, more), after });
      after = msgId;
    }
    this.changed.emit();
  }

  /** Show `message` in the place of the session's own: until that changes there, or until it is deleted. */
  replace(msgId: string, message: TMessage, untilChanged: boolean, headers?: Record<string, string>): void {
    this.#deleted.delete(msgId);
    this.#replaced.set(msgId, { message, headers, untilChanged });
    this.changed.emit();
  }

  stage(msgId: string, events: readonly UpdateEvent[]): void {
    this.#staged.push(...events.map((event) => ({ msgId, event })));
    this.changed.emit();
  }

  /** The staged events that are not sent yet. They are shown until `sent` gets them. */
  takeStaged(): StagedEvent[] {
    const taken = this.#staged;
    this.#staged = [];
    this.#sending.push(...taken);
    return taken;
  }

  sent(events: readonly StagedEvent[]): void {
    if (events.length === 0) return;
    this.#sending = this.#sending.filter((event) => !events.includes(event));
    this.changed.emit();
  }

  delete(msgId: string): void {
    this.#local.delete(msgId);
    this.#replaced.delete(msgId);
    this.#staged = this.#staged.filter((staged) => staged.msgId !== msgId);
    this.#deleted.add(msgId);
    this.changed.emit();
  }

  /** The session's own message has come, or has changed. */
  sessionChanged(msgId: string): void {
    this.#local.delete(msgId);
    if (this.#replaced.get(msgId)?.untilChanged && this.#replaced.delete(msgId)) this.changed.emit();
  }

  isDeleted(msgId: string): boolean {
    return this.#deleted.has(msgId);
  }

  getLocal(msgId: string): MessageNode<TMessage> | undefined {
    return this.#local.get(msgId)?.node;
  }

  headersOf(msgId: string): Record<string, string> | undefined {
    return this.#replaced.get(msgId)?.headers ?? this.#local.get(msgId)?.node.headers;
  }

  /** What is shown of a message of the session. `projection`: what the codec has made of its turn. */
  messageOf(codec: AnyCodec, projection: unknown, { codecMessageId: id, message }: Pair<TMessage>): TMessage {
    const replaced = this.#replaced.get(id);
    if (replaced) return replaced.message;
    const staged = [...this.#sending, ...this.#staged].filter(({ msgId }) => msgId === id);
    if (staged.length === 0) return message;
    // The codec changes what it is given.
    const copy = structuredClone(projection);
    for (const { event } of staged) {
      codec.fold(copy, { direction: 'input', event: updateInput(codec, id, event) }, { serial: '', messageId: id });
    }
    const pairs = codec.getMessages(copy) as Pair<TMessage>[];
    return pairs.find(({ codecMessageId }) => codecMessageId === id)?.message ?? message;
  }

  /** The session's nodes of a branch, with the local ones among them. */
  arrange(own: readonly MessageNode<TMessage>[]): MessageNode<TMessage>[] {
    const arranged: MessageNode<TMessage>[] = [];
    const known = new Set(own.flatMap(({ msgId, message }) => [msgId, idOf(message)]));
    const behind = new Map<string | undefined, MessageNode<TMessage>[]>();
    for (const { node, after } of this.#local.values()) {
      if (known.has(node.msgId) || known.has(idOf(node.message))) continue;
      behind.set(after, [...(behind.get(after) ?? []), node]);
    }
    const follow = (id: string | undefined) => {
      for (const node of behind.get(id) ?? []) {
        arranged.push(node);
        follow(node.msgId);
      }
    };
    follow(undefined);
    for (const node of own) {
      if (!this.#deleted.has(node.msgId)) arranged.push(node);
      follow(node.msgId);
      // What was there before the session had it went by its own id.
      const id = idOf(node.message);
      if (id !== undefined && id !== node.msgId) follow(id);
    }
    follow(END);
    return arranged;
  }
}

function idOf(message: unknown): string | undefined {
  return (message as { id?: string } | undefined)?.id;
}

function localNode<TMessage>(
  msgId: string, message: TMessage, parentId: string | undefined, { headers = {}, serial }: LocalFields = {},
): MessageNode<TMessage> {
  return { kind: 'message', msgId, id: msgId, message, parentId, forkOf: undefined, headers, serial };
}
