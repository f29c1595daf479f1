import { createChatTransport as createSessionChatTransport, type ChatTransport, type ChatTransportOptions } from '@ably/ai-transport/vercel';
import { Listeners } from './emitter.js';
import type { ClientTransport } from './types.js';
import type { SessionTransport } from './transport.js';

export type { ChatTransport, SendMessagesRequestContext } from '@ably/ai-transport/vercel';

/** `api`: where to POST after each send. The gateway needs none, so without it nothing is posted. */
export type ChatOptions = ChatTransportOptions;

/** The transport for `useChat` of the same session. `stop()` of `useChat` ends the turn for every client. */
export function createChatTransport(transport: ClientTransport<any, any>, options: ChatOptions = {}): ChatTransport {
  const { core } = transport as SessionTransport<unknown, unknown>;
  const silent: typeof globalThis.fetch = () => Promise.resolve(new Response(null, { status: 202 }));
  const inner = createSessionChatTransport(core.session as never, {
    ...(options.api === undefined && { fetch: silent }),
    ...options,
  }) as ChatTransport;
  const reading = new Reading();
  return {
    get streaming() {
      return reading.now;
    },
    sendMessages: (...args: Parameters<ChatTransport['sendMessages']>) => reading.of(async () => {
      await core.connect();
      return inner.sendMessages(...args);
    }),
    reconnectToStream: (...args: Parameters<ChatTransport['reconnectToStream']>) => reading.of(async () => {
      await core.connect();
      return inner.reconnectToStream(...args);
    }),
    onStreamingChange: (callback) => reading.changed.add(callback),
    close: () => transport.close(),
  };
}

/**
 * Whether `useChat` reads a stream. It lasts until the last chunk has been read, not until it has arrived: a list that is set
 * in between would be overwritten by the chunks that are still to be read.
 */
class Reading {
  readonly changed = new Listeners<boolean>();
  #count = 0;

  get now(): boolean {
    return this.#count > 0;
  }

  async of<T extends ReadableStream | null>(open: () => Promise<T>): Promise<T> {
    this.#add(1);
    let over = false;
    // The reader has work to do after its last chunk, too.
    const finish = () => {
      if (!over) setTimeout(() => this.#add(-1), 0);
      over = true;
    };
    try {
      const stream = await open();
      if (stream) return watched(stream, finish) as T;
      finish();
      return stream;
    } catch (error) {
      finish();
      throw error;
    }
  }

  #add(count: number): void {
    const before = this.now;
    this.#count += count;
    if (this.now !== before) this.changed.emit(this.now);
  }
}

/** The same stream, without a buffer of its own; calls `finish` when its reader has come to the end. */
function watched<T>(stream: ReadableStream<T>, finish: () => void): ReadableStream<T> {
  const reader = stream.getReader();
  const pull = async (controller: ReadableStreamDefaultController<T>) => {
    try {
      const { done, value } = await reader.read();
      if (!done) return controller.enqueue(value);
      controller.close();
    } catch (error) {
      controller.error(error);
    }
    finish();
  };
  const cancel = (reason: unknown) => {
    finish();
    return reader.cancel(reason);
  };
  return new ReadableStream<T>({ pull, cancel }, { highWaterMark: 0 });
}
