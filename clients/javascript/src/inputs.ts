import { ErrorInfo } from 'ably';
import type { Message, RealtimeChannel } from 'ably';
import { ErrorCode } from './errors.js';
import type { AnyCodec, Sendable, UpdateEvent } from './types.js';

/** A message of the codec from what was given: `{role, content}` becomes one with an id and a text part. */
export function asMessage<TMessage>(given: Sendable<TMessage>): TMessage {
  const message = given as { id?: string; role?: string; content?: unknown; parts?: unknown; items?: unknown };
  if (message.parts !== undefined || message.items !== undefined) {
    return (message.id ? message : { ...message, id: crypto.randomUUID() }) as TMessage;
  }
  if (typeof message.content !== 'string') return given as TMessage;
  const { content, ...rest } = message;
  return { id: crypto.randomUUID(), ...rest, parts: [{ type: 'text', text: content }] } as TMessage;
}

export function asList<T>(given: T | readonly T[]): T[] {
  return Array.isArray(given) ? [...given] : [given as T];
}

/** The event with the id of the tool call that it means: an approval may be named by its own id. */
export function withToolCall<TEvent extends UpdateEvent>(event: TEvent, message: unknown): TEvent {
  if (event.type !== 'tool-approval-response' || 'toolCallId' in event) return event;
  const { parts = [] } = (message ?? {}) as { parts?: { toolCallId?: string; approval?: { id: string } }[] };
  const toolCallId = parts.find((part) => part.approval?.id === event.approvalId)?.toolCallId;
  if (toolCallId === undefined) {
    throw new ErrorInfo(`the message has no tool call with the approval ${event.approvalId}`, ErrorCode.InvalidArgument, 400);
  }
  return { ...event, toolCallId };
}

/** The codec's input for an event onto the message `target`; see `withToolCall`. */
export function updateInput(codec: AnyCodec, target: string, event: UpdateEvent): unknown {
  switch (event.type) {
    case 'tool-output-available':
      return codec.createToolResult(target, { toolCallId: event.toolCallId, output: event.output });
    case 'tool-output-error':
      return codec.createToolResultError(target, { toolCallId: event.toolCallId, message: event.errorText });
    case 'tool-approval-response':
      return codec.createToolApprovalResponse(target, {
        toolCallId: 'toolCallId' in event ? event.toolCallId : undefined,
        approved: event.approved,
        ...(event.reason !== undefined && { reason: event.reason }),
      });
    default: {
      const { type } = event as { type: string };
      throw new ErrorInfo(`an update cannot hold ${type}: give outputs, errors and approvals of tools`, ErrorCode.InvalidArgument, 400);
    }
  }
}

export interface Chain {
  ids: readonly string[];
  parent: string | undefined;
  forkOf: string | undefined;
  owner: string | undefined;
}

/** Publish several messages, each the parent of the next, in one frame: the gateway makes one turn of them. */
export async function publishChain(
  channel: RealtimeChannel,
  codec: AnyCodec,
  messages: readonly unknown[],
  { ids, parent, forkOf, owner }: Chain,
): Promise<void> {
  const frame: Message[] = [];
  const refuse = () => Promise.reject(new ErrorInfo('an input is published whole', ErrorCode.InvalidArgument, 400));
  // The codec's own encoder, writing into the frame instead of the channel.
  const encoder = codec.createEncoder({
    publish: (message: Message | Message[]) => {
      frame.push(...asList(message));
      return Promise.resolve({ serials: [] });
    },
    appendMessage: refuse,
    updateMessage: refuse,
  });
  for (const [index, message] of messages.entries()) {
    const before = index === 0 ? parent : ids[index - 1];
    const headers: Record<string, string> = { role: 'user', 'codec-message-id': ids[index]!, 'event-id': crypto.randomUUID() };
    if (owner !== undefined) headers['run-client-id'] = owner;
    if (before !== undefined) headers['parent'] = before;
    if (index === 0 && forkOf !== undefined) headers['fork-of'] = forkOf;
    await encoder.publishInput(codec.createUserMessage(message), { extras: { headers }, messageId: ids[index] });
  }
  await channel.publish(frame);
}
