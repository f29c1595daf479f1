import type { ClientView, CodecInputEvent, CodecMessage, ClientSession, Tree } from '@ably/ai-transport';
import type * as Ably from 'ably';
import type { CancelFilter, TurnEvent, TurnInfo } from './turns.js';

export type { CancelFilter, TurnEndReason, TurnEvent, TurnInfo } from './turns.js';

/** A codec of `@ably/ai-transport` 0.8; what is used of it here. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyCodec = any;

export type AnySession = ClientSession<CodecInputEvent, never, unknown, unknown>;
export type InnerView<TMessage> = ClientView<CodecInputEvent, TMessage>;
export type InnerTree = Tree<never, unknown>;
export type Pair<TMessage> = CodecMessage<TMessage>;

/** The body of a wake-up POST, or headers for it: an object, or a function that is called for every send. */
export type PerSend<T> = T | (() => T);

export interface ClientTransportOptions<TMessage> {
  /** The session: a channel of an `ably` Realtime client. It is attached on first use. */
  channel: Ably.RealtimeChannel;
  codec: AnyCodec;
  /**
   * Where to POST after each send. Only set it if something outside of the gateway must hear of a send: the gateway
   * starts turns itself. Without it nothing is posted.
   */
  api?: string;
  /** The name sent in that POST. On the channel the `ably` client's identity counts. */
  clientId?: string;
  headers?: PerSend<Record<string, string>>;
  body?: PerSend<Record<string, unknown>>;
  credentials?: RequestCredentials;
  fetch?: typeof globalThis.fetch;
  /** Messages to show before the session's own, until the session has those with the same ids. */
  messages?: TMessage[];
  /** A logger as `@ably/ai-transport` makes them. */
  logger?: unknown;
}

export interface SendOptions {
  /** Merged into the body of this send's wake-up POST. */
  body?: Record<string, unknown>;
  headers?: Record<string, string>;
  /** The message that this one replaces: a new branch. */
  forkOf?: string;
  /** The message that this one follows. Default: the last one of the view's branch. */
  parent?: string;
}

/** A turn that a send, an edit, a regeneration or an update has started or continued. */
export interface ActiveTurn<TEvent> {
  /** The chunks of this turn from its first one; closes when the turn ends. */
  readonly stream: ReadableStream<TEvent>;
  readonly turnId: string;
  /** The ids of the messages that were sent, in order. */
  readonly optimisticMsgIds: string[];
  /** Ends this turn; fulfilled when its end is final. */
  cancel(): Promise<void>;
}

export interface MessageNode<TMessage> {
  kind: 'message';
  msgId: string;
  /** The same as `msgId`. */
  id: string;
  message: TMessage;
  parentId: string | undefined;
  forkOf: string | undefined;
  headers: Record<string, string>;
  /** Absent until the gateway has acknowledged the message. */
  serial: string | undefined;
}

/** What may be sent: a message of the codec, or `{role, content}` with a text. */
export type Sendable<TMessage> = TMessage | { role: string; content: string; id?: string };

export interface View<TMessage, TEvent> {
  getMessages(): TMessage[];
  flattenNodes(): MessageNode<TMessage>[];
  hasOlder(): boolean;
  loadOlder(limit?: unknown): Promise<void>;
  select(msgId: string, index: number): void;
  getSelectedIndex(msgId: string): number;
  getSiblings(msgId: string): TMessage[];
  hasSiblings(msgId: string): boolean;
  getNode(msgId: string): MessageNode<TMessage> | undefined;
  /** The turn that a message belongs to: of a question, the one that answers it. */
  getTurn(msgId: string): TurnInfo | undefined;
  send(messages: Sendable<TMessage> | Sendable<TMessage>[], options?: SendOptions): Promise<ActiveTurn<TEvent>>;
  regenerate(messageId: string, options?: SendOptions): Promise<ActiveTurn<TEvent>>;
  edit(messageId: string, messages: Sendable<TMessage> | Sendable<TMessage>[], options?: SendOptions): Promise<ActiveTurn<TEvent>>;
  update(msgId: string, events: readonly UpdateEvent[], options?: SendOptions): Promise<ActiveTurn<TEvent>>;
  getActiveTurnIds(): Map<string, Set<string>>;
  on(event: 'update', handler: () => void): () => void;
  on(event: 'ably-message', handler: (message: Ably.InboundMessage) => void): () => void;
  on(event: 'turn', handler: (event: TurnEvent) => void): () => void;
  close(): void;
}

/** An answer to a tool call that waits. */
export type UpdateEvent =
  | { type: 'tool-output-available'; toolCallId: string; output: unknown }
  | { type: 'tool-output-error'; toolCallId: string; errorText: string }
  | { type: 'tool-approval-response'; toolCallId: string; approved: boolean; reason?: string }
  | { type: 'tool-approval-response'; approvalId: string; approved: boolean; reason?: string };

export interface TransportTree<TMessage> {
  getNode(msgId: string): MessageNode<TMessage> | undefined;
  getHeaders(msgId: string): Record<string, string> | undefined;
  getSiblings(msgId: string): TMessage[];
  hasSiblings(msgId: string): boolean;
  /**
   * Shows a message: in the place of the one with this id, or behind the one that `headers.parent` names (default: the last
   * one). Only here: nothing is published. It stays until the session has a message with its id.
   */
  upsert(msgId: string, message: TMessage, headers?: Record<string, string>, serial?: string): void;
  /** Hides a message here. In the session it stays. */
  delete(msgId: string): void;
  getTurn(turnId: string): TurnInfo | undefined;
  /** Turn ids by client id, of the whole session. A turn stands under its owner's id and under its agent's. */
  getActiveTurnIds(): Map<string, Set<string>>;
  on(event: 'update', handler: () => void): () => void;
  on(event: 'ably-message', handler: (message: Ably.InboundMessage) => void): () => void;
  on(event: 'turn', handler: (event: TurnEvent) => void): () => void;
}

export interface ClientTransport<TMessage = unknown, TEvent = unknown> {
  readonly tree: TransportTree<TMessage>;
  readonly view: View<TMessage, TEvent>;
  createView(): View<TMessage, TEvent>;
  /** Ends turns, the own ones by default. Fulfilled when their end is final and has been seen here. */
  cancel(filter?: CancelFilter): Promise<void>;
  /** Waits for the turns that are active now and match; the own ones by default. */
  waitForTurn(filter?: CancelFilter): Promise<void>;
  /** Shows `message` in the place of another until that changes in the session. No other client sees it; unknown ids do nothing. */
  stageMessage(msgId: string, message: TMessage): void;
  /**
   * Shows answers to tool calls of a message at once, and sends them with the next send, before it. Unknown ids do nothing.
   * Throws an ErrorInfo with code 40003 for other events.
   */
  stageEvents(msgId: string, events: readonly UpdateEvent[]): void;
  on(event: 'error', handler: (error: Ably.ErrorInfo) => void): () => void;
  close(options?: { cancel?: CancelFilter }): Promise<void>;
}
