import { createClientSession } from '@ably/ai-transport';
import type * as Ably from 'ably';
import { Listeners } from './emitter.js';
import { asErrorInfo, closedError, ErrorCode, sendFailed } from './errors.js';
import { Overlay } from './overlay.js';
import { enter, leave } from './sharing.js';
import { TurnStreams } from './streams.js';
import { turnIdOf } from './turn-id.js';
import { transportHeaders, Turns, type ListedTurn, type TurnEndReason, type TurnInfo } from './turns.js';
import type { AnyCodec, AnySession, ClientTransportOptions, InnerTree } from './types.js';

const REMEMBERED_HEADERS = 20_000;

/** What a transport and its views share: the session of `@ably/ai-transport`, its turns, and their streams. */
export class Core<TMessage> {
  readonly client: Ably.Realtime;
  readonly channel: Ably.RealtimeChannel;
  readonly codec: AnyCodec;
  readonly session: AnySession;
  readonly turns = new Turns();
  readonly streams = new TurnStreams<unknown>();
  readonly errors = new Listeners<Ably.ErrorInfo>();
  readonly headers = new Map<string, Record<string, string>>();
  readonly options: ClientTransportOptions<TMessage>;
  readonly overlay = new Overlay<TMessage>();
  closed = false;
  #connecting: Promise<void> | undefined;
  #sending = new Set<Promise<unknown>>();

  constructor(options: ClientTransportOptions<TMessage>) {
    this.options = options;
    this.codec = options.codec;
    // There in every build of ably-js 2.23 and later, though not in its types.
    this.client = (options.channel as unknown as { client: Ably.Realtime }).client;
    this.session = createClientSession({
      client: this.client,
      channelName: options.channel.name,
      codec: options.codec,
      ...(options.logger !== undefined && { logger: options.logger }),
    } as never) as unknown as AnySession;
    this.overlay.seed(options.messages ?? []);
    this.channel = this.client.channels.get(options.channel.name);
    this.tree.on('ably-message', (message) => this.#observe(message));
    this.tree.on('output', (output) => {
      if (output.runId !== undefined) this.streams.push(output.runId, output.events);
    });
    this.turns.onEvent((event) => {
      if (event.type === 'x-ably-turn-end' && event.reason !== 'error') this.streams.close(event.turnId);
    });
    this.session.on('error', (error) => {
      if (error.code === ErrorCode.ChannelContinuityLost) this.streams.closeAll(error);
      this.errors.emit(error);
    });
  }

  get tree(): InnerTree {
    return this.session.tree as InnerTree;
  }

  /** Who this client is on the channel; undefined for an anonymous one. */
  get me(): string | undefined {
    const { clientId } = this.client.auth;
    return clientId && clientId !== '*' ? clientId : undefined;
  }

  headersOf(msgId: string): Record<string, string> | undefined {
    return this.overlay.headersOf(msgId) ?? this.headers.get(msgId);
  }

  turnIdOf(inputId: string): string {
    return turnIdOf(this.channel.name, inputId);
  }

  turnInfo(turnId: string): TurnInfo | undefined {
    const run = this.tree.getRunNode(turnId);
    const clientId = run?.clientId || this.turns.ownerOf(turnId) || '';
    // The SDK makes a run of its own when the first output or start is seen.
    if (run) return { turnId, clientId, ...run.state } as TurnInfo;
    return this.turns.has(turnId) ? { turnId, clientId, status: 'waiting' } : undefined;
  }

  /** Attach, and learn which turns are active. Once; again after it has failed. */
  connect(): Promise<void> {
    if (this.closed) return Promise.reject(closedError());
    this.#connecting ??= this.#connect().catch((error) => {
      this.#connecting = undefined;
      throw this.closed ? closedError() : asErrorInfo(error);
    });
    return this.#connecting.then(() => this.#stayAttached());
  }

  /** A client that was closed and connected again leaves its channels detached; then nothing would arrive any more. */
  async #stayAttached(): Promise<void> {
    if (this.closed || !['detached', 'failed', 'suspended'].includes(this.channel.state)) return;
    try {
      await this.channel.attach();
    } catch (error) {
      throw asErrorInfo(error);
    }
  }

  /** Attach without waiting for it: a failure goes to the listeners of errors. */
  touch(): void {
    if (this.closed || this.#connecting) return;
    this.connect().catch((error) => void (this.closed || this.errors.emit(error)));
  }

  async #connect(): Promise<void> {
    await enter(this.channel, this);
    await this.session.connect();
    this.channel.on('attached', this.#onAttached);
    await this.#readTurns();
  }

  readonly #onAttached = (change: Ably.ChannelStateChange) => {
    if (!change.resumed) void this.#readTurns();
  };

  /** Silent, waiting and suspended turns say nothing on the channel: ask for them. */
  async #readTurns(): Promise<void> {
    const before = this.turns.ids();
    try {
      const listed = await this.#get<{ turns: ListedTurn[] }>('turns');
      if (this.closed || !listed) return;
      for (const turnId of this.turns.reconcile(listed.turns, before)) void this.#readEnd(turnId);
    } catch (error) {
      // The session works without; turns appear with their next message.
      this.errors.emit(asErrorInfo(error));
    }
  }

  /** Ask for the ends of turns that the channel has not shown. */
  async readEnds(turnIds: readonly string[]): Promise<void> {
    await Promise.all(turnIds.filter((turnId) => this.turns.has(turnId)).map((turnId) => this.#readEnd(turnId)));
  }

  /** A turn that was active before continuity was lost, and is not any more. */
  async #readEnd(turnId: string): Promise<void> {
    try {
      const turn = await this.#get<{ status: string }>(`turns/${encodeURIComponent(turnId)}`);
      if (turn && isEnd(turn.status)) this.turns.endedElsewhere(turnId, turn.status);
    } catch (error) {
      const info = asErrorInfo(error);
      // The gateway has forgotten it, so it has ended. Otherwise its end is not known, and the channel tells it.
      if (info.statusCode === 404) this.turns.endedElsewhere(turnId, 'complete');
      else this.errors.emit(info);
    }
  }

  async #get<T>(what: string): Promise<T | undefined> {
    const path = `/v1/sessions/${encodeURIComponent(this.channel.name)}/${what}`;
    const answer = await this.client.request<T>('GET', path, 4);
    if (answer.success) return answer.items[0];
    throw asErrorInfo({ code: answer.errorCode, statusCode: answer.statusCode, message: answer.errorMessage });
  }

  #observe(message: Ably.InboundMessage): void {
    const headers = transportHeaders(message);
    const id = headers['codec-message-id'];
    if (id !== undefined) {
      this.overlay.sessionChanged(id);
      this.headers.set(id, headers);
      if (this.headers.size > REMEMBERED_HEADERS) this.headers.delete(this.headers.keys().next().value!);
    }
    if (message.name === 'ai-run-end' && headers['run-reason'] === 'error') {
      const run = this.tree.getRunNode(headers['run-id']!);
      const error = run?.state.status === 'error' ? run.state.error : undefined;
      this.streams.close(headers['run-id']!, error ?? asErrorInfo({ message: 'the turn failed', code: ErrorCode.StreamError, statusCode: 500 }));
    }
    this.turns.observe(message);
  }

  /** Do what sends: the listeners of errors get the failure, too. */
  async sending<T>(work: () => Promise<T>): Promise<T> {
    if (this.closed) throw closedError();
    const promise = (async () => {
      await this.connect();
      return work();
    })();
    this.#sending.add(promise);
    try {
      return await promise;
    } catch (error) {
      const info = this.closed ? closedError() : sendFailed(error);
      this.errors.emit(info);
      throw info;
    } finally {
      this.#sending.delete(promise);
    }
  }

  /** Resolves when all that was being sent is acknowledged or refused. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#sending]);
  }

  async close(): Promise<void> {
    this.closed = true;
    this.channel.off('attached', this.#onAttached);
    this.errors.clear();
    await leave(this.channel, this, () => this.session.close());
    this.streams.closeAll();
  }
}

function isEnd(status: string): status is TurnEndReason {
  return ['complete', 'cancelled', 'error'].includes(status);
}
