import { SessionTransport } from './transport.js';
import type { ClientTransport, ClientTransportOptions } from './types.js';

export { ErrorCode, errorInfoIs } from './errors.js';
export { turnIdOf } from './turn-id.js';
export type * from './types.js';

/** A transport of the session that is `options.channel`. It attaches on first use; close it when it is not needed any more. */
export function createClientTransport<TMessage = unknown, TEvent = unknown>(
  options: ClientTransportOptions<TMessage>,
): ClientTransport<TMessage, TEvent> {
  return new SessionTransport<TMessage, TEvent>(options);
}
