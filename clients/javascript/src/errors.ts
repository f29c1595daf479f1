import { ErrorCode as SessionErrorCode } from '@ably/ai-transport';
import { ErrorInfo } from 'ably';

export { errorInfoIs } from '@ably/ai-transport';

/** Codes of errors, under the names of the first generation of the API and those of `@ably/ai-transport` 0.8. */
export const ErrorCode = {
  ...SessionErrorCode,
  BadRequest: 40000,
  InvalidArgument: 40003,
  EncoderRecoveryFailed: 104000,
  TransportSubscriptionError: 104001,
  CancelListenerError: 104002,
  TurnLifecycleError: 104003,
  TransportClosed: 104004,
  TransportSendFailed: 104005,
  ChannelContinuityLost: 104006,
  ChannelNotReady: 104007,
  StreamError: 104008,
} as const;

export function closedError(): ErrorInfo {
  return new ErrorInfo('the transport is closed; create a new one', ErrorCode.TransportClosed, 400);
}

export function asErrorInfo(error: unknown): ErrorInfo {
  if (error instanceof ErrorInfo) return error;
  const { message, code, statusCode } = (error ?? {}) as { message?: string; code?: number; statusCode?: number };
  return new ErrorInfo(message ?? String(error), code ?? 50000, statusCode ?? 500);
}

/** What a send rejects with. `cause` is the refusal, or what broke. */
export function sendFailed(error: unknown): ErrorInfo {
  const info = asErrorInfo(error);
  if ([ErrorCode.TransportClosed, ErrorCode.TransportSendFailed, ErrorCode.InvalidArgument].includes(info.code as never)) return info;
  const cause = (info.cause as ErrorInfo | undefined) ?? info;
  return new ErrorInfo(`the message was not sent: ${info.message}`, ErrorCode.TransportSendFailed, 500, cause as never);
}
