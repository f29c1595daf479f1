import { ErrorInfo } from 'ably';
import type { InboundMessage } from 'ably';
import { Core } from './core.js';
import { asErrorInfo, ErrorCode } from './errors.js';
import { updateInput, withToolCall } from './inputs.js';
import { nodeOf, resolveId } from './nodes.js';
import type { CancelFilter, TurnEvent, TurnInfo } from './turns.js';
import type {
  ClientTransport, ClientTransportOptions, InnerView, MessageNode, Pair, PerSend, SendOptions, TransportTree, UpdateEvent,
} from './types.js';
import { TransportView, type Sent, type ViewHost } from './view.js';

/** How long to wait for the ends that an acknowledged cancel has already made final. */
const END_PATIENCE_MS = 5_000;

/** How long a close waits for its cancel: without a connection that would not come to an end. */
const CLOSE_PATIENCE_MS = 5_000;

interface CancelAnswer {
  cancel?: { matched?: string[] };
}

/** A session, as the first generation of the API presents it. */
export class SessionTransport<TMessage, TEvent> implements ClientTransport<TMessage, TEvent> {
  readonly core: Core<TMessage>;
  readonly view: TransportView<TMessage, TEvent>;
  readonly tree: TransportTree<TMessage>;
  readonly #host: ViewHost;
  readonly #views = new Set<TransportView<TMessage, TEvent>>();

  constructor(options: ClientTransportOptions<TMessage>) {
    this.core = new Core(options);
    this.#host = {
      cancelTurn: (turnId) => this.cancel({ turnId }),
      closed: (view) => void this.#views.delete(view as TransportView<TMessage, TEvent>),
      wake: (turnId, sent, send) => this.#wake(turnId, sent, send),
    };
    const inner = this.core.session.view as unknown as InnerView<TMessage>;
    this.view = new TransportView(this.core, inner, this.#host);
    this.tree = new SessionTree(this.core, inner, () => this.view.peekNodes().at(-1)?.msgId);
  }

  createView(): TransportView<TMessage, TEvent> {
    const view = new TransportView<TMessage, TEvent>(
      this.core, this.core.session.createView() as unknown as InnerView<TMessage>, this.#host,
    );
    this.#views.add(view);
    return view;
  }

  async cancel(filter: CancelFilter = { own: true }): Promise<void> {
    if (this.core.closed) return;
    await this.#cancel(filter);
  }

  async waitForTurn(filter: CancelFilter = { own: true }): Promise<void> {
    if (this.core.closed) return;
    await this.core.connect();
    await this.core.turns.whenEnded(this.core.turns.matching(filter, this.core.me));
  }

  stageMessage(msgId: string, message: TMessage): void {
    const id = this.#known(msgId);
    if (id !== undefined) this.core.overlay.replace(id, message, true);
  }

  stageEvents(msgId: string, events: readonly UpdateEvent[]): void {
    const id = this.#known(msgId);
    if (id === undefined) return;
    // Refuses what could never be sent.
    const named = events.map((event) => withToolCall(event, this.tree.getNode(id)?.message));
    for (const event of named) updateInput(this.core.codec, id, event);
    this.core.overlay.stage(id, named);
  }

  #known(msgId: string): string | undefined {
    const id = resolveId(this.core, this.core.session.view as unknown as InnerView<TMessage>, msgId);
    if (this.core.tree.getNodeByCodecMessageId(id)) return id;
    console.warn(`selfhost-transport: there is no message ${msgId} to stage`);
    return undefined;
  }

  on(event: 'error', handler: (error: ErrorInfo) => void): () => void {
    if (this.core.closed || event !== 'error') return () => {};
    return this.core.errors.add(handler);
  }

  async close({ cancel }: { cancel?: CancelFilter } = {}): Promise<void> {
    if (this.core.closed) return;
    if (cancel) await Promise.race([this.#cancel(cancel).catch(() => {}), passed(CLOSE_PATIENCE_MS)]);
    if (this.core.closed) return;
    for (const view of [...this.#views]) view.close();
    await this.core.close();
  }

  async #cancel(filter: CancelFilter): Promise<void> {
    await this.core.connect();
    // What is still on its way is meant, too.
    await this.core.settled();
    const transport = { 'event-id': crypto.randomUUID(), ...filterHeader(filter) };
    let answer: CancelAnswer;
    try {
      answer = (await this.core.channel.publish({ name: 'ai-cancel', extras: { ai: { transport } } })) as CancelAnswer;
    } catch (error) {
      throw asErrorInfo(error);
    }
    const matched = answer.cancel?.matched ?? [];
    if (!(await this.core.turns.whenEnded(matched, END_PATIENCE_MS))) await this.core.readEnds(matched);
  }

  #wake(turnId: string, sent: Sent, send: SendOptions | undefined): void {
    const { api, body, headers, credentials, clientId, fetch: fetchWith = globalThis.fetch } = this.core.options;
    if (api === undefined) return;
    const id = this.core.channel.name;
    const content = {
      ...valueOf(body), ...send?.body, ...sent,
      turnId, clientId: clientId ?? this.core.me, id,
      ...(send?.forkOf !== undefined && { forkOf: send.forkOf }),
      ...(send?.parent !== undefined && { parent: send.parent }),
    };
    const failed = (why: string) =>
      this.core.errors.emit(new ErrorInfo(`the POST to ${api} failed: ${why}`, ErrorCode.TransportSendFailed, 500));
    fetchWith(api, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...valueOf(headers), ...send?.headers },
      body: JSON.stringify(content),
      ...(credentials && { credentials }),
    }).then(
      (response) => void (response.ok || failed(`status ${response.status}`)),
      (error: unknown) => failed(asErrorInfo(error).message),
    );
  }
}

/** Every known message of the session. */
class SessionTree<TMessage> implements TransportTree<TMessage> {
  readonly #core: Core<TMessage>;
  readonly #view: InnerView<TMessage>;

  readonly #last: () => string | undefined;

  constructor(core: Core<TMessage>, view: InnerView<TMessage>, last: () => string | undefined) {
    this.#core = core;
    this.#view = view;
    this.#last = last;
  }

  getNode(msgId: string): MessageNode<TMessage> | undefined {
    const id = this.#id(msgId);
    const { overlay } = this.#core;
    const node = overlay.isDeleted(id) ? undefined : this.#core.tree.getNodeByCodecMessageId(id);
    if (!node) return overlay.getLocal(id);
    const pairs = this.#core.codec.getMessages(node.projection) as Pair<TMessage>[];
    const pair = pairs.find(({ codecMessageId }) => codecMessageId === id);
    return pair && nodeOf(this.#core, pair);
  }

  getHeaders(msgId: string): Record<string, string> | undefined {
    return this.#core.headersOf(this.#id(msgId));
  }

  upsert(msgId: string, message: TMessage, headers: Record<string, string> = {}, serial?: string): void {
    const id = this.#id(msgId);
    const { overlay } = this.#core;
    if (this.#core.tree.getNodeByCodecMessageId(id)) return overlay.replace(id, message, false, headers);
    const parent = headers['parent'];
    const before = overlay.getLocal(id);
    const after = parent !== undefined ? this.#id(parent) : before ? before.parentId : this.#last();
    overlay.add([message], [id], after, { headers, serial });
  }

  delete(msgId: string): void {
    this.#core.overlay.delete(this.#id(msgId));
  }

  #id(msgId: string): string {
    return resolveId(this.#core, this.#view, msgId);
  }

  getSiblings(msgId: string): TMessage[] {
    return this.#view.branchSelection(this.#id(msgId)).siblings;
  }

  hasSiblings(msgId: string): boolean {
    return this.#view.branchSelection(this.#id(msgId)).hasSiblings;
  }

  getTurn(turnId: string): TurnInfo | undefined {
    return this.#core.turnInfo(turnId);
  }

  getActiveTurnIds(): Map<string, Set<string>> {
    this.#core.touch();
    return this.#core.turns.map();
  }

  on(event: 'update', handler: () => void): () => void;
  on(event: 'ably-message', handler: (message: InboundMessage) => void): () => void;
  on(event: 'turn', handler: (event: TurnEvent) => void): () => void;
  on(event: 'update' | 'ably-message' | 'turn', handler: (value: never) => void): () => void {
    if (this.#core.closed) return () => {};
    this.#core.touch();
    if (event === 'turn') return this.#core.turns.onEvent(handler as (event: TurnEvent) => void);
    if (event === 'update') {
      // Which turns are active belongs to the tree, too.
      const changed = handler as () => void;
      const offs = [this.#core.tree.on('update', changed), this.#core.turns.onChange(changed), this.#core.overlay.changed.add(changed)];
      return () => offs.forEach((off) => off());
    }
    return this.#core.tree.on('ably-message', handler as (message: InboundMessage) => void);
  }
}

function filterHeader(filter: Partial<{ turnId: string; own: boolean; clientId: string; all: boolean }>): Record<string, string> {
  if (filter.turnId !== undefined) return { 'run-id': filter.turnId };
  if (filter.own) return { 'cancel-own': 'true' };
  if (filter.clientId !== undefined) return { 'cancel-client-id': filter.clientId };
  if (filter.all) return { 'cancel-all': 'true' };
  throw new ErrorInfo('a filter has turnId, own, clientId or all', ErrorCode.InvalidArgument, 400);
}

function passed(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

function valueOf<T>(given: PerSend<T> | undefined): T | undefined {
  return typeof given === 'function' ? (given as () => T)() : given;
}
