import { ErrorInfo } from 'ably';
import type { InboundMessage } from 'ably';
import type { Core } from './core.js';
import { Listeners } from './emitter.js';
import { closedError, ErrorCode } from './errors.js';
import { asList, asMessage, publishChain, updateInput, withToolCall } from './inputs.js';
import { nodeOf, resolveId } from './nodes.js';
import { END } from './overlay.js';
import { sendStaged } from './staged.js';
import type { TurnEvent, TurnInfo } from './turns.js';
import type { ActiveTurn, InnerView, MessageNode, Sendable, SendOptions, UpdateEvent, View } from './types.js';

const PAGE = 100;

/** What a view needs of the transport that it belongs to. */
export interface ViewHost {
  cancelTurn(turnId: string): Promise<void>;
  closed?(view: object): void;
  /** Tells those who listen outside of the gateway. */
  wake(turnId: string, sent: Sent, options: SendOptions | undefined): void;
}

/** What a wake-up POST tells: the new messages, and those of the branch before them. */
export interface Sent {
  messages: { message: unknown; headers: Record<string, string> }[];
  history: { message: unknown; headers: Record<string, string> }[];
}

/** One selected branch of the session, paged, with the verbs that send. */
export class TransportView<TMessage, TEvent> implements View<TMessage, TEvent> {
  readonly #core: Core<TMessage>;
  readonly #inner: InnerView<TMessage>;
  readonly #host: ViewHost;
  #messages: TMessage[] | undefined;
  #nodes: MessageNode<TMessage>[] | undefined;
  readonly #redrawn = new Listeners<void>();
  readonly #off: () => void;

  constructor(core: Core<TMessage>, inner: InnerView<TMessage>, host: ViewHost) {
    this.#core = core;
    this.#inner = inner;
    this.#host = host;
    inner.on('update', () => this.#forget());
    this.#off = core.overlay.changed.add(() => {
      this.#forget();
      this.#redrawn.emit();
    });
  }

  /** The messages of the branch: the same array until they change. */
  getMessages(): TMessage[] {
    this.#core.touch();
    return this.peekMessages();
  }

  /** The messages without attaching for them. */
  peekMessages(): TMessage[] {
    this.#messages ??= this.peekNodes().map(({ message }) => message);
    return this.#messages;
  }

  flattenNodes(): MessageNode<TMessage>[] {
    this.#core.touch();
    return this.peekNodes();
  }

  peekNodes(): MessageNode<TMessage>[] {
    this.#nodes ??= this.#core.overlay.arrange(this.#inner.getMessages().map((pair) => nodeOf(this.#core, pair)));
    return this.#nodes;
  }

  hasOlder(): boolean {
    return this.#inner.hasOlder();
  }

  /** Load older messages. A value that is no whole number, such as an event of the DOM, means 100. */
  async loadOlder(limit?: unknown): Promise<void> {
    await this.#core.connect();
    await this.#inner.loadOlder(Number.isInteger(limit) && (limit as number) > 0 ? (limit as number) : PAGE);
  }

  select(msgId: string, index: number): void {
    const branch = this.#branch(msgId);
    const wanted = Math.max(0, Math.min(index, branch.siblings.length - 1));
    if (wanted !== branch.index) branch.select(wanted);
  }

  getSelectedIndex(msgId: string): number {
    return this.#branch(msgId).index;
  }

  getSiblings(msgId: string): TMessage[] {
    return this.#branch(msgId).siblings;
  }

  hasSiblings(msgId: string): boolean {
    return this.#branch(msgId).hasSiblings;
  }

  getNode(msgId: string): MessageNode<TMessage> | undefined {
    const id = this.#id(msgId);
    return this.peekNodes().find((node) => node.msgId === id);
  }

  getTurn(msgId: string): TurnInfo | undefined {
    const id = this.#id(msgId);
    return this.#core.turnInfo(this.#inner.runOf(id)?.runId ?? this.#core.turnIdOf(id));
  }

  send(messages: Sendable<TMessage> | Sendable<TMessage>[], options?: SendOptions): Promise<ActiveTurn<TEvent>> {
    return this.#sendMessages(messages, options, options?.forkOf === undefined, (inputs, ids, forkOf, parent) => {
      if (inputs.length === 1) return this.#publishOne(inputs[0]!, ids[0]!, forkOf, parent);
      return this.#publishChain(inputs, ids, forkOf, parent ?? this.#lastOwn());
    });
  }

  edit(messageId: string, messages: Sendable<TMessage> | Sendable<TMessage>[], options?: SendOptions): Promise<ActiveTurn<TEvent>> {
    const target = this.#id(messageId);
    return this.#sendMessages(messages, options, false, async (inputs, ids) => {
      if (inputs.length === 1) {
        await this.#inner.edit(target, { ...this.#core.codec.createUserMessage(inputs[0]), codecMessageId: ids[0] });
        return;
      }
      const shown = this.#switchTo(ids[0]!);
      const parent = this.#core.tree.getNodeByCodecMessageId(target)?.parentCodecMessageId;
      await this.#publishChain(inputs, ids, target, parent);
      await shown;
    });
  }

  regenerate(messageId: string, options?: SendOptions): Promise<ActiveTurn<TEvent>> {
    const target = this.#id(messageId);
    return this.#core.sending(async () => {
      // The id of the input is made by the SDK and known only afterwards: collect what may arrive before that.
      const early: { runId: string; events: TEvent[] }[] = [];
      const off = this.#core.tree.on('output', ({ runId, events }) => void (runId && early.push({ runId, events })));
      try {
        const run = await this.#inner.regenerate(target);
        const turnId = this.#core.turnIdOf(run.inputCodecMessageId);
        const stream = this.#core.streams.open(turnId) as ReadableStream<TEvent>;
        for (const { runId, events } of early) this.#core.streams.push(runId === turnId ? turnId : '', events);
        this.#core.turns.expect(turnId, this.#core.me);
        this.#core.turns.accepted(turnId);
        if (!this.#core.turns.has(turnId)) this.#core.streams.close(turnId);
        this.#wake(turnId, [], [], options);
        return this.#turn(turnId, stream, []);
      } finally {
        off();
      }
    });
  }

  update(msgId: string, events: readonly UpdateEvent[], options?: SendOptions): Promise<ActiveTurn<TEvent>> {
    const target = this.#id(msgId);
    return this.#core.sending(async () => {
      const turnId = this.#inner.runOf(target)?.runId;
      if (turnId === undefined) {
        throw new ErrorInfo(`no turn has the message ${msgId}; load older messages first`, ErrorCode.InvalidArgument, 400);
      }
      const message = this.getNode(target)?.message;
      const inputs = events.map((event) => updateInput(this.#core.codec, target, withToolCall(event, message)));
      const stream = this.#core.streams.open(turnId) as ReadableStream<TEvent>;
      try {
        await sendStaged(this.#core, this.#inner, turnId, inputs);
      } catch (error) {
        this.#core.streams.close(turnId);
        throw error;
      }
      this.#wake(turnId, [], [], options);
      return this.#turn(turnId, stream, []);
    });
  }

  getActiveTurnIds(): Map<string, Set<string>> {
    this.#core.touch();
    const visible = new Map<string, Set<string>>();
    for (const [clientId, turnIds] of this.#core.turns.map()) {
      const shown = [...turnIds].filter((turnId) => this.#inner.run(turnId));
      if (shown.length > 0) visible.set(clientId, new Set(shown));
    }
    return visible;
  }

  on(event: 'update', handler: () => void): () => void;
  on(event: 'ably-message', handler: (message: InboundMessage) => void): () => void;
  on(event: 'turn', handler: (event: TurnEvent) => void): () => void;
  on(event: 'update' | 'ably-message' | 'turn', handler: (value: never) => void): () => void {
    if (this.#core.closed) return () => {};
    this.#core.touch();
    if (event === 'turn') {
      return this.#core.turns.onEvent((turn) => {
        if (this.#inner.run(turn.turnId)) (handler as (event: TurnEvent) => void)(turn);
      });
    }
    if (event === 'update') {
      const offs = [this.#inner.on('update', handler as () => void), this.#redrawn.add(handler as () => void)];
      return () => offs.forEach((off) => off());
    }
    return this.#inner.on('ably-message', handler as (message: InboundMessage) => void);
  }

  close(): void {
    this.#off();
    this.#inner.close();
    this.#host.closed?.(this);
  }

  #id(id: string): string {
    return resolveId(this.#core, this.#inner, id);
  }

  #branch(msgId: string) {
    return this.#inner.branchSelection(this.#id(msgId));
  }

  #sendMessages(
    given: Sendable<TMessage> | Sendable<TMessage>[],
    options: SendOptions | undefined,
    isNext: boolean,
    publish: (inputs: TMessage[], ids: string[], forkOf?: string, parent?: string) => Promise<void>,
  ): Promise<ActiveTurn<TEvent>> {
    const inputs = asList(given).map((message) => asMessage<TMessage>(message));
    const ids = inputs.map(() => crypto.randomUUID() as string);
    // Shown at once, also before there is a connection. A fork shows when it is there.
    const parent = options?.parent === undefined ? this.#lastOwn() : this.#id(options.parent);
    const place = parent ?? END;
    if (isNext && !this.#core.closed) this.#core.overlay.add(inputs, ids, place);
    return this.#core.sending(async () => {
      const last = ids.at(-1);
      if (last === undefined) throw new ErrorInfo('there is no message to send', ErrorCode.InvalidArgument, 400);
      const turnId = this.#core.turnIdOf(last);
      const stream = this.#core.streams.open(turnId) as ReadableStream<TEvent>;
      this.#core.turns.expect(turnId, this.#core.me);
      try {
        await sendStaged(this.#core, this.#inner);
        await publish(inputs, ids, options?.forkOf && this.#id(options.forkOf), options?.parent && this.#id(options.parent));
      } catch (error) {
        this.#core.turns.forget(turnId);
        this.#core.streams.close(turnId);
        throw error;
      }
      this.#core.turns.accepted(turnId);
      this.#wake(turnId, inputs, ids, options);
      return this.#turn(turnId, stream, ids);
    }).catch((error) => {
      // It stays where it was written. With an id of its own: should it have arrived nevertheless, it is shown once.
      if (!this.#core.closed) this.#core.overlay.add(inputs, ids, this.#lastOwn() ?? place);
      throw error;
    });
  }

  /** The last message that the session has on this branch. */
  #lastOwn(): string | undefined {
    return this.#inner.getMessages().at(-1)?.codecMessageId;
  }

  #wake(turnId: string, inputs: readonly TMessage[], ids: readonly string[], options: SendOptions | undefined): void {
    const history = this.peekNodes().filter(({ msgId }) => !ids.includes(msgId)).map(({ message, headers }) => ({ message, headers }));
    const messages = inputs.map((message, index) => ({ message, headers: this.#core.headersOf(ids[index]!) ?? {} }));
    this.#host.wake(turnId, { messages, history }, options);
  }

  #forget(): void {
    this.#messages = undefined;
    this.#nodes = undefined;
  }

  async #publishOne(message: TMessage, id: string, forkOf?: string, parent?: string): Promise<void> {
    const input = { ...this.#core.codec.createUserMessage(message), codecMessageId: id };
    await this.#inner.send(input, { ...(forkOf !== undefined && { forkOf }), ...(parent !== undefined && { parent }) });
  }

  #publishChain(inputs: TMessage[], ids: string[], forkOf?: string, parent?: string): Promise<void> {
    if (this.#core.closed) return Promise.reject(closedError());
    return publishChain(this.#core.channel, this.#core.codec, inputs, { ids, forkOf, parent, owner: this.#core.me });
  }

  /** Show the branch of a message as soon as it is there. */
  #switchTo(id: string): Promise<void> {
    return new Promise((resolve) => {
      const off = this.#core.tree.on('update', () => {
        if (!this.#core.tree.getNodeByCodecMessageId(id)) return;
        off();
        // After the view has taken the update in.
        queueMicrotask(() => {
          const branch = this.#inner.branchSelection(id);
          branch.select(branch.siblings.length - 1);
          resolve();
        });
      });
    });
  }

  #turn(turnId: string, stream: ReadableStream<TEvent>, optimisticMsgIds: string[]): ActiveTurn<TEvent> {
    return { turnId, stream, optimisticMsgIds, cancel: () => this.#host.cancelTurn(turnId) };
  }
}
