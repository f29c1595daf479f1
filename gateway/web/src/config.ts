/** Where the page connects and as whom: its address, the gateway's `config.json`, the options of the `ably` client. */
import type * as Ably from 'ably';
import { gatewayUrl } from './prefix';
import { local, tab } from './storage';

/** How the page proves who it is: a development key, a token, or an address that hands out tokens. */
export type Credentials = { kind: 'key'; key: string } | { kind: 'token'; token: string } | { kind: 'tokenUrl'; url: string };

const TOKEN_URL = 'tokenUrl';
const TOKEN = 'token';
const CLIENT = 'client';

/** A short random name; long enough that two strangers do not meet. */
export function randomName(prefix: string): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
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

/** The session that the address names; a missing one is made up and written into the address. */
export function currentSession(): string {
  const session = new URL(location.href).searchParams.get('session');
  if (session) return session;
  const made = randomName('chat');
  history.replaceState(null, '', sessionUrl(made));
  return made;
}

/** The address of a session in this page, the other parameters kept. */
export function sessionUrl(session: string): string {
  const url = new URL(location.href);
  url.searchParams.set('session', session);
  return url.href;
}

/** The address to give to another person: without the name of this one. */
export function sharedUrl(session: string): string {
  const url = new URL(sessionUrl(session));
  url.searchParams.delete('client');
  return url.href;
}

/** Who this person is: one name in all tabs of the browser, so that each of them can stop what another one started. */
export function chosenClient(): string {
  const named = new URL(location.href).searchParams.get('client');
  if (named) return named;
  const known = local.get(CLIENT) ?? randomName('guest');
  local.set(CLIENT, known);
  return known;
}

/** Be another person from now on, in this browser. */
export function changeClient(name: string): void {
  local.set(CLIENT, name);
  const url = new URL(location.href);
  url.searchParams.delete('client');
  location.assign(url.href);
}

/** What the person gave earlier in this tab or browser, else the gateway's development key; null where there is neither. */
export async function findCredentials(): Promise<Credentials | null> {
  const token = tab.get(TOKEN);
  if (token) return { kind: 'token', token };
  const url = local.get(TOKEN_URL);
  if (url) return { kind: 'tokenUrl', url };
  const response = await fetch(gatewayUrl('config.json'), { cache: 'no-store' });
  if (response.status === 404 || response.status === 403) return null;
  if (!response.ok) throw new Error(`The gateway answered ${response.status} for config.json.`);
  const { key } = (await response.json()) as { key?: string };
  return key ? { kind: 'key', key } : null;
}

export function keepToken(token: string): void {
  tab.set(TOKEN, token);
}

export function keepTokenUrl(url: string): void {
  local.set(TOKEN_URL, url);
}

/** Forget tokens and where they came from. */
export function signOut(): void {
  tab.remove(TOKEN);
  local.remove(TOKEN_URL);
}

/** Whom a token stands for; undefined when it may name anyone. Rejects with a sentence for a token that is not accepted. */
export async function ownerOfToken(token: string): Promise<string | undefined> {
  // A JWT goes as it is, Ably's own tokens in base64.
  const value = /^[\w-]+\.[\w-]+\.[\w-]+$/.test(token) ? token : btoa(token);
  const answer = await fetch(gatewayUrl('v1/me'), { headers: { authorization: `Bearer ${value}` } });
  const body = (await answer.json().catch(() => ({}))) as { clientId?: string; error?: { message?: string } };
  if (!answer.ok) throw new Error(body.error?.message ?? `The gateway does not accept this token (${answer.status}).`);
  return body.clientId === '*' ? undefined : body.clientId;
}

/** The page's own host as an Ably endpoint. A name without a dot would be read as a routing policy, so it gets one. */
function endpoint(hostname: string): string {
  const literal = hostname === 'localhost' || hostname.includes('.') || hostname.includes(':');
  return literal ? hostname : `${hostname}.`;
}

function authOptions(credentials: Credentials, client: string): Ably.ClientOptions {
  switch (credentials.kind) {
    case 'key':
      return { key: credentials.key, clientId: client };
    case 'token':
      return { token: credentials.token };
    case 'tokenUrl':
      return { authUrl: credentials.url, authParams: { clientId: client } };
  }
}

/** Options that lead to the server this page came from, and nowhere else. */
export function ablyOptions(client: string, credentials: Credentials): Ably.ClientOptions {
  const tls = location.protocol === 'https:';
  const port = Number(location.port) || (tls ? 443 : 80);
  return {
    ...authOptions(credentials, client),
    endpoint: endpoint(location.hostname),
    port,
    tlsPort: port,
    tls,
    disableConnectivityCheck: true,
    wsConnectivityCheckUrl: `${tls ? 'wss' : 'ws'}://${location.host}/`,
    useBinaryProtocol: new URL(location.href).searchParams.get('format') === 'msgpack',
    // It grows to the double at most: a gateway that returns is found within a second.
    disconnectedRetryTimeout: 450,
    suspendedRetryTimeout: 450,
  } as Ably.ClientOptions;
}
