import { ChannelProvider, useAbly } from 'ably/react';
import type { ErrorInfo, InboundMessage, Realtime } from 'ably';
import {
  createContext, createElement, useCallback, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore,
  type ReactElement, type ReactNode,
} from 'react';
import { asErrorInfo } from './errors.js';
import { Holders } from './holder.js';
import { SessionTransport } from './transport.js';
import type { ClientTransport, ClientTransportOptions, MessageNode, View } from './types.js';
import type { TransportView } from './view.js';

/* eslint-disable @typescript-eslint/no-explicit-any */
type AnyTransport = SessionTransport<any, any>;
type AnyView = TransportView<any, any>;

interface Provided {
  transport: AnyTransport | undefined;
  error: ErrorInfo | undefined;
}

interface Registry {
  byName: ReadonlyMap<string, Provided>;
  nearest: Provided | undefined;
}

const Transports = createContext<Registry>({ byName: new Map(), nearest: undefined });

export interface TransportProviderProps<TMessage = any> extends Omit<ClientTransportOptions<TMessage>, 'channel'> {
  channelName: string;
  children?: ReactNode;
}

/**
 * Gives the components in it a transport of the session `channelName`, over the `ably` client of the surrounding
 * `AblyProvider`. It is attached when something first uses it, and closed after the last provider of it has gone.
 */
export function TransportProvider<TMessage = any>({ channelName, children, ...options }: TransportProviderProps<TMessage>): ReactElement {
  const client = useAbly();
  const latest = useRef(options);
  latest.current = options;
  const holder = useMemo(() => {
    const make = () => new SessionTransport({ ...latest.current, channel: client.channels.get(channelName) });
    return holders.get(client, JSON.stringify([channelName, kindOf(latest.current.codec)]), make);
  }, [client, channelName]);
  useEffect(() => holder.retain(), [holder]);
  const subscribe = useCallback((changed: () => void) => holder.changed.add(changed), [holder]);
  const transport = useSyncExternalStore(subscribe, () => holder.value, () => holder.value);
  const error = useSyncExternalStore(subscribe, () => holder.error, () => holder.error);
  const outer = useContext(Transports);
  const registry = useMemo(() => {
    const provided = { transport, error: error === undefined ? undefined : asErrorInfo(error) };
    return { byName: new Map(outer.byName).set(channelName, provided), nearest: provided };
  }, [outer, channelName, transport, error]);
  const within = createElement(Transports.Provider, { value: registry }, children);
  const channelOptions = useMemo(() => ({ params: { agent: agentOf(client, channelName) } }), [client, channelName, transport]);
  // For the hooks of `ably/react` on the same channel.
  return error === undefined ? createElement(ChannelProvider, { channelName, options: channelOptions }, within) : within;
}

/** Two transports on one channel would close it under each other's feet: all providers of a session share one. */
const holders = new Holders<AnyTransport>();
const codecs = new WeakMap<object, number>();
let codecCount = 0;

/** The same for codecs of the same making: pages also make one for every render. */
function kindOf(codec: { adapterTag?: string } | undefined): string | number {
  if (!codec) return 'none';
  if (codec.adapterTag !== undefined) return codec.adapterTag;
  const kind = codecs.get(codec) ?? (codecCount += 1);
  codecs.set(codec, kind);
  return kind;
}

/** The agents that the session has named for its channel. The provider adds its own, and would otherwise replace them. */
function agentOf(client: Realtime, channelName: string): string {
  const channel = client.channels.get(channelName) as unknown as { channelOptions?: { params?: { agent?: string } } };
  const agents = channel.channelOptions?.params?.agent ?? '';
  return agents.split(' ').filter((agent) => !agent.startsWith('react-hooks/')).join(' ');
}

const stubs = new WeakSet<object>();

/** Stands for a transport that is not there: any use of it says why. */
export function stub(why: string): any {
  const made = new Proxy({}, {
    get: (_, name) => {
      // What React and consoles look at in any value.
      if (typeof name === 'symbol' || name === '$$typeof' || name === 'toJSON') return undefined;
      throw new Error(`${why}: its ${name} cannot be used`);
    },
  });
  stubs.add(made);
  return made;
}

export function isStub(value: object): boolean {
  return stubs.has(value);
}

export interface UseClientTransportOptions {
  channelName?: string;
  skip?: boolean;
  onError?: (error: ErrorInfo) => void;
}

export interface ClientTransportHandle<TMessage = any, TEvent = any> {
  transport: ClientTransport<TMessage, TEvent>;
  transportError: ErrorInfo | undefined;
}

/** The transport of the nearest provider, or of the one with `channelName`. When there is none, `transportError` says why. */
export function useClientTransport<TMessage = any, TEvent = any>(
  { channelName, skip = false, onError }: UseClientTransportOptions = {},
): ClientTransportHandle<TMessage, TEvent> {
  const { byName, nearest } = useContext(Transports);
  const found = channelName === undefined ? nearest : byName.get(channelName);
  const transport = skip ? undefined : found?.transport;
  const handler = useRef(onError);
  handler.current = onError;
  useEffect(() => transport?.on('error', (error) => handler.current?.(error)), [transport]);
  return useMemo(() => {
    if (transport) return { transport: transport as ClientTransport<TMessage, TEvent>, transportError: undefined };
    if (skip) return { transport: stub('the transport is skipped'), transportError: undefined };
    const which = channelName === undefined ? '' : ` with channelName ${JSON.stringify(channelName)}`;
    const missing = asErrorInfo({ message: `there is no TransportProvider${which} around this component`, code: 40000, statusCode: 400 });
    const transportError = found ? found.error : missing;
    return { transport: stub(transportError?.message ?? 'the transport is closed'), transportError };
  }, [transport, skip, channelName, found]);
}

/** The transport that was given, or the nearest one; none for null, for a stub, and when skipped. */
function useGiven(given: ClientTransport<any, any> | null | undefined, skip = false): AnyTransport | undefined {
  const { nearest } = useContext(Transports);
  if (skip || given === null || (given && stubs.has(given))) return undefined;
  return (given as AnyTransport | undefined) ?? nearest?.transport;
}

export interface UseViewOptions<TMessage = any, TEvent = any> {
  transport?: ClientTransport<TMessage, TEvent> | null;
  view?: View<TMessage, TEvent> | null;
  /** How many messages to load on mount. Without it, only what is new is shown. */
  limit?: number;
  skip?: boolean;
}

export interface ViewHandle<TMessage, TEvent>
  extends Pick<View<TMessage, TEvent>,
    'select' | 'getSelectedIndex' | 'getSiblings' | 'hasSiblings' | 'getNode' | 'getTurn' | 'send' | 'regenerate' | 'edit' | 'update'> {
  messages: TMessage[];
  nodes: MessageNode<TMessage>[];
  hasOlder: boolean;
  loading: boolean;
  loadError: ErrorInfo | undefined;
  loadOlder(limit?: unknown): Promise<void>;
}

const NOTHING: never[] = [];

/** A view's messages and verbs; renders again when the view changes. Without a view, that of the nearest transport. */
export function useView<TMessage = any, TEvent = any>(
  { transport, view, limit, skip }: UseViewOptions<TMessage, TEvent> = {},
): ViewHandle<TMessage, TEvent> {
  const given = useGiven(view ? null : transport, skip);
  const shown = skip ? undefined : ((view as AnyView | null | undefined) ?? given?.view);
  return useViewHandle<TMessage, TEvent>(shown, limit);
}

/** The same as `useView` on a view of its own: another branch, other pages. Closed on unmount. */
export function useCreateView<TMessage = any, TEvent = any>(
  { transport, limit, skip }: Omit<UseViewOptions<TMessage, TEvent>, 'view'> = {},
): ViewHandle<TMessage, TEvent> {
  const given = useGiven(transport, skip);
  const [view, setView] = useState<AnyView>();
  useEffect(() => {
    if (!given) return setView(undefined);
    const made = given.createView();
    setView(made);
    return () => made.close();
  }, [given]);
  return useViewHandle<TMessage, TEvent>(view, limit);
}

function useViewHandle<TMessage, TEvent>(view: AnyView | undefined, limit: number | undefined): ViewHandle<TMessage, TEvent> {
  const subscribe = useCallback((changed: () => void) => view?.on('update', changed) ?? (() => {}), [view]);
  const peek = () => (view ? view.peekMessages() : NOTHING);
  const messages = useSyncExternalStore(subscribe, peek, peek);
  const [loading, setLoading] = useState(false);
  const [loadError, setLoadError] = useState<ErrorInfo>();
  const busy = useRef<AnyView | undefined>(undefined);

  const loadOlder = useCallback(async (count?: unknown) => {
    if (!view || busy.current === view) return;
    busy.current = view;
    setLoading(true);
    setLoadError(undefined);
    try {
      await view.loadOlder(count);
    } catch (error) {
      if (busy.current === view) setLoadError(asErrorInfo(error));
    } finally {
      if (busy.current === view) {
        busy.current = undefined;
        setLoading(false);
      }
    }
  }, [view]);
  useEffect(() => {
    if (limit !== undefined) void loadOlder(limit);
  }, [loadOlder, limit]);

  const verbs = useMemo(() => {
    const of = (): AnyView => {
      if (!view) throw new Error('there is no view: it is skipped, or there is no transport');
      return view;
    };
    return {
      select: (id: string, index: number) => of().select(id, index),
      getSelectedIndex: (id: string) => view?.getSelectedIndex(id) ?? 0,
      getSiblings: (id: string) => view?.getSiblings(id) ?? NOTHING,
      hasSiblings: (id: string) => view?.hasSiblings(id) ?? false,
      getNode: (id: string) => view?.getNode(id),
      getTurn: (id: string) => view?.getTurn(id),
      send: (...args: Parameters<AnyView['send']>) => of().send(...args),
      regenerate: (...args: Parameters<AnyView['regenerate']>) => of().regenerate(...args),
      edit: (...args: Parameters<AnyView['edit']>) => of().edit(...args),
      update: (...args: Parameters<AnyView['update']>) => of().update(...args),
    };
  }, [view]);
  const nodes = view ? view.peekNodes() : NOTHING;
  return { ...verbs, messages, nodes, hasOlder: view?.hasOlder() ?? false, loading, loadError, loadOlder } as ViewHandle<TMessage, TEvent>;
}

/** Look-ups in the tree; they do not render again. */
export function useTree<TMessage = any>({ transport }: { transport?: ClientTransport<TMessage, any> | null } = {}) {
  const tree = useGiven(transport)?.tree;
  return useMemo(() => ({
    getSiblings: (id: string): TMessage[] => tree?.getSiblings(id) ?? [],
    hasSiblings: (id: string): boolean => tree?.hasSiblings(id) ?? false,
    getNode: (id: string): MessageNode<TMessage> | undefined => tree?.getNode(id),
  }), [tree]);
}

const NO_TURNS = new Map<string, Set<string>>();

/** Turn ids by client id (of the owner, and of the agent), of all clients of the session. */
export function useActiveTurns({ transport }: { transport?: ClientTransport<any, any> | null } = {}): Map<string, Set<string>> {
  const given = useGiven(transport);
  const subscribe = useCallback((changed: () => void) => {
    if (!given) return () => {};
    given.core.touch();
    return given.core.turns.onChange(changed);
  }, [given]);
  const read = () => given?.core.turns.map() ?? NO_TURNS;
  return useSyncExternalStore(subscribe, read, read);
}

/** The messages of the channel as they arrive. */
export function useAblyMessages(
  { transport, skip }: { transport?: ClientTransport<any, any> | null; skip?: boolean } = {},
): InboundMessage[] {
  const given = useGiven(transport, skip);
  const [messages, setMessages] = useState<InboundMessage[]>([]);
  useEffect(() => {
    setMessages([]);
    return given?.tree.on('ably-message', (message) => setMessages((before) => [...before, message]));
  }, [given]);
  return messages;
}
