/** Where the page connects and as whom: the URL, the gateway's `config.json`, the Ably client options. */
import type * as Ably from 'ably';

/** What the gateway tells the page in development mode. */
export interface PageConfig {
  key: string;
  wakeUrl: string;
}

/** How the page proves who it is: a development key, or a URL that hands out Ably tokens. */
export type Credentials = { kind: 'key'; key: string } | { kind: 'tokenUrl'; url: string };

/** The session and client this page works with, as named in its URL. */
export interface Place {
  session: string;
  client: string;
  binary: boolean;
}

const TOKEN_URL = 'tokenUrl';
const CLIENT = 'client';

/** Where agents are woken unless the gateway says otherwise. */
export const DEFAULT_WAKE_URL = '/api/chat';

/** A short random name; long enough that two strangers do not meet. */
export function randomName(prefix: string): string {
  const bytes = crypto.getRandomValues(new Uint8Array(5));
  return `${prefix}-${[...bytes].map((byte) => (byte % 36).toString(36)).join('')}`;
}

/**
 * `crypto.randomUUID` exists in secure contexts only, and a self-hosted page is often opened over plain http
 * from another machine. The SDK calls it for every message.
 */
export function ensureRandomUuid(): void {
  if (typeof crypto.randomUUID === 'function') return;
  crypto.randomUUID = () => {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  };
}

/**
 * Read session and client from the URL. A missing session is made up and written back, so that the address can
 * be opened on another device; a missing client id is made up once per tab.
 */
export function readPlace(): Place {
  const url = new URL(location.href);
  let session = url.searchParams.get('session');
  if (!session) {
    session = randomName('chat');
    url.searchParams.set('session', session);
    history.replaceState(null, '', url);
  }
  const client = url.searchParams.get('client') || sessionStorage.getItem(CLIENT) || randomName('user');
  sessionStorage.setItem(CLIENT, client);
  return { session, client, binary: url.searchParams.get('format') === 'msgpack' };
}

/** The address of another session; without a name, of a new one. */
export function sessionUrl(session: string = randomName('chat')): string {
  const url = new URL(location.href);
  url.searchParams.set('session', session);
  return url.href;
}

/** The gateway's page configuration; null where it serves none (it has no development key, or we are not local). */
export async function fetchPageConfig(): Promise<PageConfig | null> {
  const response = await fetch('config.json', { cache: 'no-store' });
  if (response.status === 404 || response.status === 403) return null;
  if (!response.ok) throw new Error(`The gateway answered ${response.status} for config.json.`);
  const body = (await response.json()) as Partial<PageConfig>;
  return body.key ? { key: body.key, wakeUrl: body.wakeUrl ?? DEFAULT_WAKE_URL } : null;
}

/** The token URL typed in earlier in this browser. */
export function savedTokenUrl(): string | null {
  return localStorage.getItem(TOKEN_URL);
}

/** Remember a token URL for this browser, or forget it. */
export function saveTokenUrl(url: string | null): void {
  if (url) localStorage.setItem(TOKEN_URL, url);
  else localStorage.removeItem(TOKEN_URL);
}

/** The page's own host as an Ably endpoint. A name without a dot would be read as a routing policy, so it gets one. */
function endpoint(hostname: string): string {
  const literal = hostname === 'localhost' || hostname.includes('.') || hostname.includes(':');
  return literal ? hostname : `${hostname}.`;
}

/** Ably client options that lead to the server this page came from, and nowhere else. */
export function ablyOptions(place: Place, credentials: Credentials): Ably.ClientOptions {
  const tls = location.protocol === 'https:';
  const port = Number(location.port) || (tls ? 443 : 80);
  const auth: Ably.ClientOptions =
    credentials.kind === 'key'
      ? { key: credentials.key }
      : { authUrl: credentials.url, authParams: { clientId: place.client } };
  return {
    ...auth,
    clientId: place.client,
    endpoint: endpoint(location.hostname),
    port,
    tlsPort: port,
    tls,
    transports: ['web_socket'],
    disableConnectivityCheck: true,
    useBinaryProtocol: place.binary,
  };
}
