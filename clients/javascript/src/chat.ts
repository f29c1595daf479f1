import { createChatTransport as createSessionChatTransport, type ChatTransport, type ChatTransportOptions } from '@ably/ai-transport/vercel';
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
  return {
    get streaming() {
      return inner.streaming;
    },
    async sendMessages(...args: Parameters<ChatTransport['sendMessages']>) {
      await core.connect();
      return inner.sendMessages(...args);
    },
    async reconnectToStream(...args: Parameters<ChatTransport['reconnectToStream']>) {
      await core.connect();
      return inner.reconnectToStream(...args);
    },
    onStreamingChange: (callback) => inner.onStreamingChange(callback),
    close: () => transport.close(),
  };
}
