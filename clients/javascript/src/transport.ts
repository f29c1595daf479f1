import { ErrorInfo } from 'ably';
import type { InboundMessage } from 'ably';
import { Core } from './core.js';
import { asErrorInfo, ErrorCode } from './errors.js';
import { nodeOf, resolveId } from './nodes.js';
import type { CancelFilter, TurnEvent } from './turns.js';
import type {
  ClientTransport, ClientTransportOptions, InnerView, MessageNode, PerSend, SendOptions, TransportTree,
} from './types.js';
import { TransportView, type ViewHost } from './view.js';

/** How long to wait for the ends that an acknowledged cancel has already made final. */
const END_PATIENCE_MS = 5_000;

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
      wake: (turnId, messages, send) => this.#wake(turnId, messages, send),
    };
    const inner = this.core.session.view as unknown as InnerView<TMessage>;
    this.view = new TransportView(this.core, inner, this.#host);
    this.tree = new SessionTree(this.core, inner);
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
    const inner = this.core.session.view as unknown as InnerView<TMessage>;
    const id = resolveId(this.core, inner, msgId);
    if (!this.core.tree.getNodeByCodecMessageId(id)) {
      console.warn(`selfhost-transport: there is no message ${msgId} to stage`);
      return;
    }
    this.core.staged.set(id, message);
    this.core.restaged.emit();
  }

  on(event: 'error', handler: (error: ErrorInfo) => void): () => void {
    if (this.core.closed || event !== 'error') return () => {};
    return this.core.errors.add(handler);
  }

  async close({ cancel }: { cancel?: CancelFilter } = {}): Promise<void> {
    if (this.core.closed) return;
    if (cancel) await this.#cancel(cancel).catch(() => {});
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
    await this.core.turns.whenEnded(answer.cancel?.matched ?? [], END_PATIENCE_MS);
  }

  #wake(turnId: string, messages: readonly unknown[], send: SendOptions | undefined): void {
    const { api, body, headers, credentials, clientId, fetch: fetchWith = globalThis.fetch } = this.core.options;
    if (api === undefined) return;
    const id = this.core.channel.name;
    const content = {
      ...valueOf(body), ...send?.body,
      messages: messages.map((message) => ({ message, headers: {} })), history: [], turnId, clientId: clientId ?? this.core.me, id,
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

  constructor(core: Core<TMessage>, view: InnerView<TMessage>) {
    this.#core = core;
    this.#view = view;
  }

  getNode(msgId: string): MessageNode<TMessage> | undefined {
    const id = resolveId(this.#core, this.#view, msgId);
    const node = this.#core.tree.getNodeByCodecMessageId(id);
    if (!node) return undefined;
    const pairs = this.#core.codec.getMessages(node.projection) as { codecMessageId: string; message: TMessage }[];
    const pair = pairs.find(({ codecMessageId }) => codecMessageId === id);
    return pair && nodeOf(this.#core, pair);
  }

  getHeaders(msgId: string): Record<string, string> | undefined {
    return this.#core.headers.get(resolveId(this.#core, this.#view, msgId));
  }

  getSiblings(msgId: string): TMessage[] {
    return this.#view.branchSelection(resolveId(this.#core, this.#view, msgId)).siblings;
  }

  hasSiblings(msgId: string): boolean {
    return this.#view.branchSelection(resolveId(this.#core, this.#view, msgId)).hasSiblings;
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
      const offs = [this.#core.tree.on('update', handler as () => void), this.#core.turns.onChange(handler as () => void)];
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

function valueOf<T>(given: PerSend<T> | undefined): T | undefined {
  return typeof given === 'function' ? (given as () => T)() : given;
}
