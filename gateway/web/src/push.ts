/** Pushes of answers whose reader has left: this browser's subscription, for the person who asked for it. */
import type * as Ably from 'ably';
import { gatewayUrl } from './prefix';
import { local } from './storage';
import { Store } from './store';

export type PushState = 'absent' | 'off' | 'on' | 'busy' | 'denied';

interface Kept {
  person: string;
  id: string;
}

const KEPT = 'push';
/** Of ably's REST protocol; what it asks for here has one form in all of them. */
const VERSION = 5;

export class Push extends Store<PushState> {
  /** What went wrong, for the person to read. */
  readonly problem = new Store('');
  readonly #client: Ably.Realtime;
  #person: string;
  #publicKey = '';

  /** `name`: the person, where the credentials leave that open. */
  constructor(client: Ably.Realtime, name: string) {
    super('absent');
    this.#client = client;
    this.#person = name;
  }

  /** Finds out whether pushes can be had, and renews a subscription that this person has. */
  async start(): Promise<void> {
    if (!('serviceWorker' in navigator && 'PushManager' in window && 'Notification' in window)) return;
    await this.#client.connection.whenState('connected');
    const { clientId } = this.#client.auth;
    if (clientId && clientId !== '*') this.#person = clientId;
    const answer = await this.#client.request<{ publicKey: string }>('GET', '/v1/push', VERSION);
    if (!answer.success || !answer.items[0]) return;
    this.#publicKey = answer.items[0].publicKey;
    const kept = read();
    // Another person's answers are not for this one to see.
    if (kept && kept.person !== this.#person) await this.#drop();
    else if (kept && Notification.permission === 'granted') return this.#try(() => this.#subscribe());
    this.set(Notification.permission === 'denied' ? 'denied' : 'off');
  }

  /** Asks the browser, and subscribes. */
  turnOn(): Promise<void> {
    return this.#try(async () => {
      const permission = await Notification.requestPermission();
      if (permission === 'granted') await this.#subscribe();
      else this.set(permission === 'denied' ? 'denied' : 'off');
    });
  }

  /** Ends the subscription, at the gateway and in the browser. */
  async turnOff(): Promise<void> {
    if (this.get() === 'absent') return;
    await this.#try(async () => {
      const kept = read();
      if (kept) await this.#client.request('DELETE', `/v1/push/subscriptions/${kept.id}`, VERSION);
      await this.#drop();
      this.set('off');
    });
  }

  async #subscribe(): Promise<void> {
    await navigator.serviceWorker.register(gatewayUrl('push-worker.js'), { scope: gatewayUrl('') });
    const { pushManager } = await navigator.serviceWorker.ready;
    const applicationServerKey = bytes(this.#publicKey);
    const old = await pushManager.getSubscription();
    if (old && !equal(old.options.applicationServerKey, applicationServerKey)) await old.unsubscribe();
    const made = await pushManager.subscribe({ userVisibleOnly: true, applicationServerKey });
    const answer = await this.#client.request<{ id: string }>('PUT', '/v1/push/subscriptions', VERSION, undefined, made.toJSON());
    const id = answer.items[0]?.id;
    if (!answer.success || !id) throw new Error(answer.errorMessage || 'The gateway did not take the subscription.');
    local.set(KEPT, JSON.stringify({ person: this.#person, id } satisfies Kept));
    this.set('on');
  }

  /** The browser's own part: its address is gone, and the gateway learns so when it uses it. */
  async #drop(): Promise<void> {
    local.remove(KEPT);
    const registration = await navigator.serviceWorker.getRegistration(gatewayUrl(''));
    await (await registration?.pushManager.getSubscription())?.unsubscribe();
  }

  async #try(change: () => Promise<void>): Promise<void> {
    this.set('busy');
    this.problem.set('');
    try {
      await change();
    } catch (error) {
      this.problem.set((error as Error).message);
      this.set(Notification.permission === 'denied' ? 'denied' : 'off');
    }
  }
}

function read(): Kept | null {
  try {
    return JSON.parse(local.get(KEPT) ?? 'null') as Kept | null;
  } catch {
    return null;
  }
}

function bytes(base64url: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64url.replaceAll('-', '+').replaceAll('_', '/')), (letter) => letter.charCodeAt(0));
}

function equal(one: ArrayBuffer | null, other: Uint8Array): boolean {
  const left = one ? new Uint8Array(one) : new Uint8Array();
  return left.length === other.length && left.every((byte, at) => byte === other[at]);
}
