import { createUIMessageCodec } from '@ably/ai-transport/vercel';
import type { UIMessage, UIMessageChunk } from 'ai';
import { SessionTransport } from './transport.js';
import type { ClientTransport, ClientTransportOptions } from './types.js';

export { createChatTransport, type ChatOptions, type ChatTransport, type SendMessagesRequestContext } from './chat.js';
export { ErrorCode, errorInfoIs } from './errors.js';
export type * from './types.js';

/** The codec of `UIMessage`, the messages of the AI SDK. */
export const UIMessageCodec = createUIMessageCodec();

export type VercelClientTransportOptions = Omit<ClientTransportOptions<UIMessage>, 'codec'>;

/** A transport of a session whose messages are those of the AI SDK. */
export function createClientTransport(options: VercelClientTransportOptions): ClientTransport<UIMessage, UIMessageChunk> {
  return new SessionTransport<UIMessage, UIMessageChunk>({ ...options, codec: UIMessageCodec });
}
