// What the suites share: clients that close themselves, sessions, waiting for conditions, and promises of time.
//
// The environment says where to connect: PORTS (comma separated, one per gateway), KEY, FORMAT (json | msgpack).
import { createClientSession, createUIMessageCodec } from '@ably/ai-transport/vercel';
import * as Ably from 'ably';
import assert from 'node:assert/strict';
import { test } from 'node:test';

export const KEY = process.env.KEY;
export const PORTS = (process.env.PORTS ?? '').split(',').map(Number);
export const FORMAT = process.env.FORMAT ?? 'json';

export const codec = createUIMessageCodec();

const PATIENCE_MS = 30_000;

export function options(extra = {}, gateway = 0) {
  return {
    key: KEY,
    endpoint: '127.0.0.1',
    port: PORTS[gateway % PORTS.length],
    tls: false,
    disableConnectivityCheck: true,
    useBinaryProtocol: FORMAT === 'msgpack',
    logLevel: 0,
    ...extra,
  };
}

/** An Ably realtime client that is closed when test `t` ends. */
export function connect(t, clientId, extra = {}, gateway = 0) {
  const client = new Ably.Realtime({ ...options(extra, gateway), ...(clientId ? { clientId } : {}) });
  t.after(() => closed(client));
  return client;
}

export function rest(extra = {}, gateway = 0) {
  // Over plain http ably-js refuses basic auth, so the key is exchanged for a token.
  return new Ably.Rest({ ...options(extra, gateway), useTokenAuth: true });
}

export async function closed(client) {
  const { connection } = client;
  if (connection.state === 'closed' || connection.state === 'failed') return;
  const done = connection.whenState('closed');
  client.close();
  await done;
}

let count = 0;

/** A channel name no one used before, in `namespace`. */
export function unique(namespace = 'chat') {
  count += 1;
  return `${namespace}:${Date.now().toString(36)}-${process.pid}-${count}`;
}

/** A connected client session (`useChat`-style messages) on `channelName` for `clientId`. */
export async function join(t, clientId, channelName, { gateway = 0, extra = {} } = {}) {
  const client = connect(t, clientId, extra, gateway);
  const session = createClientSession({ client, channelName });
  const errors = [];
  session.on('error', (error) => errors.push(error));
  await session.connect();
  return { client, session, view: session.view, tree: session.tree, channelName, clientId, errors };
}

export function question(text, id = crypto.randomUUID()) {
  return codec.createUserMessage({ id, role: 'user', parts: [{ type: 'text', text }] });
}

export function send(member, text) {
  return member.view.send(question(text));
}

/** The POST by which the SDK's clients wake an agent. */
export function wake(run, gateway = 0) {
  return fetch(`http://127.0.0.1:${PORTS[gateway % PORTS.length]}/api/chat`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(run.toInvocation().toJSON()),
  });
}

/** `0 1 2 … ` as the scripted model says it. */
export function tokens(n) {
  return Array.from({ length: n }, (_, index) => `${index} `).join('');
}

export function textOf(message) {
  return message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
}

/** What the answering turn `runId` has said so far, as the member's view shows it. */
export function said(member, runId) {
  return member.view
    .getMessages()
    .filter(({ codecMessageId, message }) => message.role === 'assistant' && member.view.runOf(codecMessageId)?.runId === runId)
    .map(({ message }) => textOf(message))
    .join('');
}

export function status(member, runId) {
  return member.tree.getRunNode(runId)?.state.status;
}

/** Every message of the view as `[role, text]`. */
export function transcript(member) {
  return member.view.getMessages().map(({ message }) => [message.role, message.parts ? textOf(message) : message.items]);
}

/**
 * Resolve with the first truthy value of `condition`, checked whenever `subscribe` calls back.
 * Reject after `patience` ms with `what` and a last look at the value of `describe`.
 */
export function until(what, subscribe, condition, { patience = PATIENCE_MS, describe = () => '' } = {}) {
  return new Promise((resolve, reject) => {
    let unsubscribe = () => {};
    let settled = false;
    const finish = (settle, value) => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      queueMicrotask(() => unsubscribe());
      settle(value);
    };
    const check = () => {
      try {
        const value = condition();
        if (value) finish(resolve, value);
      } catch (error) {
        finish(reject, error);
      }
    };
    const timer = setTimeout(
      () => finish(reject, new Error(`not within ${patience} ms: ${what} ${JSON.stringify(describe())}`)),
      patience,
    );
    // An emitter may call this listener before the one that records, so the condition is looked at once all were called;
    // and again and again, since what an event is about may be recorded only later.
    const unlisten = subscribe(() => queueMicrotask(check));
    const looking = setInterval(check, 50);
    unsubscribe = () => (clearInterval(looking), unlisten());
    check();
  });
}

/** Wait for a condition on what a member sees; checked at every change of its tree. */
export function seen(member, what, condition, extra = {}) {
  const subscribe = (check) => {
    const offs = [
      member.view.on('update', check),
      ...['update', 'run', 'output'].map((event) => member.tree.on(event, check)),
    ];
    return () => offs.forEach((off) => off());
  };
  const describe = () => ({ messages: transcript(member), runs: member.view.runs(), errors: member.errors.map(String) });
  return until(`${what} (seen by ${member.clientId})`, subscribe, condition, { describe, ...extra });
}

export function ended(member, runId, expected) {
  return seen(member, `turn ${runId} ${expected}`, () => {
    const now = status(member, runId);
    if (now === expected) return true;
    if (now && now !== 'active' && now !== 'suspended') throw new Error(`turn ended ${now}, expected ${expected}`);
    return false;
  });
}

/** Wait until a run is known to have begun. The SDK itself waits forever. */
export async function begun(run) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the turn did not begin within ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  await Promise.race([run.started, late]).finally(() => clearTimeout(timer));
  return run;
}

/** Start a turn and wait until it is known to run; gives the run handle. */
export async function startTurn(member, text) {
  return begun(await send(member, text));
}

/** Record every raw channel message that reaches a new client, in order. */
export async function eavesdrop(t, channelName, { gateway = 0 } = {}) {
  const client = connect(t, `eavesdropper-${count}`, {}, gateway);
  const channel = client.channels.get(channelName);
  const heard = [];
  const listeners = new Set();
  await channel.subscribe((message) => {
    heard.push(message);
    for (const listener of [...listeners]) listener();
  });
  const hears = (what, condition, extra = {}) =>
    until(
      what,
      (check) => {
        listeners.add(check);
        return () => listeners.delete(check);
      },
      () => condition(heard),
      { describe: () => heard.map((message) => [message.name, message.action, message.data]), ...extra },
    );
  return { client, channel, heard, hears };
}

export function transportHeaders(message) {
  return message.extras?.ai?.transport ?? {};
}

/** Model output with words in it that belongs to turn `runId`. */
export function isContentOf(message, runId) {
  const headers = transportHeaders(message);
  return message.name === 'ai-output' && headers['run-id'] === runId && headers.stream === 'true' && Boolean(message.data);
}

/** The `ai-run-end` messages of a turn; a turn must have exactly one. */
export function terminals(heard, runId) {
  return heard.filter((message) => message.name === 'ai-run-end' && transportHeaders(message)['run-id'] === runId);
}

/** All was well, but for the time that it took. */
export class TooSlow extends assert.AssertionError {}

/** Throws TooSlow unless something took less than the limit. */
export function quick(tookMs, limitMs) {
  if (tookMs >= limitMs) throw new TooSlow({ message: `took ${Math.round(tookMs)} ms instead of less than ${limitMs}` });
}

const TRIES = 5;

/**
 * A test of a promise of time: repeated while it throws TooSlow, and then only. A machine that is busy makes one try slow; a
 * fault makes every try slow.
 */
export function prompt(name, body) {
  test(name, async (t) => {
    for (let tries = 1; ; tries += 1) {
      try {
        return await body(t);
      } catch (error) {
        if (!(error instanceof TooSlow) || tries === TRIES) throw error;
        t.diagnostic(`tried again: ${error.message}`);
      }
    }
  });
}
