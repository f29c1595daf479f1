import type { ErrorInfo } from 'ably';
import type { UIMessage, UIMessageChunk } from 'ai';
import { createContext, createElement, useContext, useEffect, useMemo, useRef, useState, type ReactNode } from 'react';
import { createChatTransport, type ChatOptions, type ChatTransport } from './chat.js';
import { asErrorInfo } from './errors.js';
import { isStub, stub, TransportProvider, useClientTransport } from './react.js';
import type { SessionTransport } from './transport.js';
import type { ClientTransport } from './types.js';
import { UIMessageCodec, type VercelClientTransportOptions } from './vercel.js';

export {
  TransportProvider, useAblyMessages, useActiveTurns, useClientTransport, useCreateView, useTree, useView,
} from './react.js';

interface Chats {
  byName: ReadonlyMap<string, ChatTransport>;
  nearest: ChatTransport | undefined;
}

const ChatTransports = createContext<Chats>({ byName: new Map(), nearest: undefined });

export interface ChatTransportProviderProps extends Omit<VercelClientTransportOptions, 'channel'> {
  channelName: string;
  chatOptions?: ChatOptions;
  children?: ReactNode;
}

/** A `TransportProvider` for the messages of the AI SDK, with a transport for `useChat` of the same session. */
export function ChatTransportProvider({ channelName, chatOptions, children, ...options }: ChatTransportProviderProps) {
  const chat = createElement(WithChat, { channelName, chatOptions: { ...pick(options), ...chatOptions } }, children);
  // The chat's transport posts, if anything does.
  return createElement(TransportProvider<UIMessage>, { ...options, api: undefined, channelName, codec: UIMessageCodec } as never, chat);
}

function pick({ api, credentials, fetch }: Partial<VercelClientTransportOptions>): ChatOptions {
  return { ...(api !== undefined && { api }), ...(credentials && { credentials }), ...(fetch && { fetch }) };
}

function WithChat({ channelName, chatOptions, children }: { channelName: string; chatOptions: ChatOptions; children?: ReactNode }) {
  const { transport } = useClientTransport<UIMessage, UIMessageChunk>({ channelName });
  const latest = useRef(chatOptions);
  latest.current = chatOptions;
  const outer = useContext(ChatTransports);
  const made = useMemo(() => (isStub(transport) ? undefined : createChatTransport(transport, {
    ...latest.current,
    // The function of the newest render.
    prepareSendMessagesRequest: (context) => latest.current.prepareSendMessagesRequest?.(context) ?? {},
  })), [transport]);
  const chats = useMemo(() => {
    const byName = new Map(outer.byName);
    if (made) byName.set(channelName, made);
    return { byName, nearest: made };
  }, [outer, channelName, made]);
  return createElement(ChatTransports.Provider, { value: chats }, children);
}

export interface ChatTransportHandle {
  transport: ClientTransport<UIMessage, UIMessageChunk>;
  chatTransport: ChatTransport;
  transportError: ErrorInfo | undefined;
  chatTransportError: ErrorInfo | undefined;
}

/** The transports of the nearest `ChatTransportProvider`, or of the one with `channelName`. */
export function useChatTransport({ channelName, skip = false }: { channelName?: string; skip?: boolean } = {}): ChatTransportHandle {
  const handle = useClientTransport<UIMessage, UIMessageChunk>({ ...(channelName !== undefined && { channelName }), skip });
  const { byName, nearest } = useContext(ChatTransports);
  const found = skip ? undefined : channelName === undefined ? nearest : byName.get(channelName);
  return useMemo(() => {
    if (found) return { ...handle, chatTransport: found, chatTransportError: undefined };
    const missing = asErrorInfo({ message: 'there is no ChatTransportProvider around this component', code: 40000, statusCode: 400 });
    const chatTransportError = skip ? undefined : (handle.transportError ?? missing);
    return { ...handle, chatTransport: stub(chatTransportError?.message ?? 'the transport is skipped'), chatTransportError };
  }, [found, handle, skip]);
}

type SetMessages = (update: (previous: UIMessage[]) => UIMessage[]) => void;

export interface UseMessageSyncOptions {
  setMessages: SetMessages | ((update: any) => void);
  channelName?: string;
  skip?: boolean;
}

/** Keeps the list of `useChat` equal to the session's; held back while `useChat` itself reads a stream. */
export function useMessageSync({ setMessages, channelName, skip = false }: UseMessageSyncOptions): void {
  const { transport, chatTransport, chatTransportError } = useChatTransport({ ...(channelName !== undefined && { channelName }), skip });
  const usable = !skip && !chatTransportError && !isStub(transport);
  const set = useRef(setMessages);
  set.current = setMessages;
  const [streaming, setStreaming] = useState(false);
  useEffect(() => {
    if (!usable) return;
    setStreaming(chatTransport.streaming);
    return chatTransport.onStreamingChange(setStreaming);
  }, [usable, chatTransport]);
  useEffect(() => {
    if (!usable || streaming) return;
    const { view } = transport as unknown as SessionTransport<UIMessage, UIMessageChunk>;
    const sync = () => {
      const messages = view.peekMessages();
      set.current((previous: UIMessage[]) => merged(messages, previous));
    };
    const off = view.on('update', sync);
    sync();
    return off;
  }, [usable, streaming, transport]);
}

type ToolPart = { type: string; toolCallId?: string; state?: string };

/** The session's messages, with answers to tools that the page has given and that have not come back yet. */
function merged(messages: readonly UIMessage[], previous: readonly UIMessage[]): UIMessage[] {
  const shown = new Map(previous.map((message) => [message.id, message]));
  const isAnswered = (part: ToolPart) => ['approval-responded', 'output-available', 'output-error'].includes(part.state ?? '');
  return messages.map((message) => {
    const parts = (shown.get(message.id)?.parts ?? []) as ToolPart[];
    const answers = new Map(parts.filter((part) => part.toolCallId && isAnswered(part)).map((part) => [part.toolCallId, part]));
    if (message.role !== 'assistant' || answers.size === 0) return message;
    const kept = (message.parts as ToolPart[]).map((part) => (isAnswered(part) ? part : (answers.get(part.toolCallId) ?? part)));
    return { ...message, parts: kept as UIMessage['parts'] };
  });
}
