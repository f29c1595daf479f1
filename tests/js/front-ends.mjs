// What the suites of plain HTTP front ends share: chats of `useChat` without a DOM, agents of AG-UI, cuts, and raw frames.
import assert from 'node:assert/strict';
import { KEY, PORTS } from './support.mjs';

const PACKAGES = { 7: 'ai', 6: 'ai6', '6.0.206': 'ai6-206', '6.0.1': 'ai6-1' };
// A process that needs one of them, or none, says so: they load for long.
const WANTED = process.env.AI_VERSIONS?.split(',') ?? Object.keys(PACKAGES);
export const VERSIONS = {};
for (const version of WANTED.filter(Boolean)) VERSIONS[version] = await import(PACKAGES[version]);
export const AUTH = { authorization: `Basic ${Buffer.from(KEY).toString('base64')}` };
// A person has a name: each tab of theirs uses it.
export const as = (clientId) => ({ ...AUTH, 'x-ably-clientid': Buffer.from(clientId).toString('base64') });
export const base = (gateway = 0) => `http://127.0.0.1:${PORTS[gateway % PORTS.length]}`;

/** The state that the chat class of `ai` writes to. */
export function plainState(messages = []) {
  const state = {
    messages,
    status: 'ready',
    error: undefined,
    pushMessage: (message) => (state.messages = [...state.messages, message]),
    popMessage: () => (state.messages = state.messages.slice(0, -1)),
    replaceMessage: (index, message) => (state.messages = state.messages.with(index, structuredClone(message))),
    snapshot: (thing) => structuredClone(thing),
  };
  return state;
}

/** A chat of one version of `ai` with its default transport; `init` may name another one. */
export function chatOf(version, id, { messages = [], gateway = 0, clientId = 'user-1', fetch: fetching = fetch, transport = {}, ...init } = {}) {
  const { AbstractChat, DefaultChatTransport } = VERSIONS[version];
  class Chat extends AbstractChat {}
  const made = transport.sendMessages ? transport : new DefaultChatTransport({ api: `${base(gateway)}/api/chat`, headers: as(clientId), fetch: fetching, ...transport });
  return new Chat({ id, messages, state: plainState(messages), transport: made, ...init });
}

export const historyOf = async (id, gateway = 0, clientId = 'user-1') =>
  (await fetch(`${base(gateway)}/api/chat/${encodeURIComponent(id)}/messages`, { headers: as(clientId) })).json();

/**
 * A `fetch` whose response is cut, connection and all, once it has given `bytes()` bytes; never where that is Infinity.
 * `quietly`: the client reads an end instead of an error, which AG-UI's client leaves without a handler.
 */
export function cuttingFetch(bytes, { quietly = false } = {}) {
  const record = { cuts: 0 };
  const cutting = async (address, request = {}) => {
    const connection = new AbortController();
    request.signal?.addEventListener('abort', () => connection.abort());
    const response = await fetch(address, { ...request, signal: connection.signal });
    let left = bytes();
    if (!response.body || left === Infinity) return response;
    const reader = response.body.getReader();
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await reader.read();
        if (done) return controller.close();
        controller.enqueue(value.subarray(0, left));
        left -= value.length;
        if (left > 0) return;
        record.cuts += 1;
        connection.abort();
        if (quietly) controller.close();
        else controller.error(new TypeError('terminated'));
      },
      cancel: (reason) => reader.cancel(reason),
    });
    return new Response(body, response);
  };
  return Object.assign(cutting, { record });
}

/** Neither the chat class nor HTTP tells of changes: both are asked until the condition holds. */
export async function holds(condition, patience = 30_000) {
  const late = Date.now() + patience;
  while (!(await condition())) {
    assert.ok(Date.now() < late, `not within ${patience} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Call `work` with 0, 1, 2 … until `enough`, some at once. */
export async function several(enough, work, atOnce = 8) {
  let number = 0;
  const repeat = async () => {
    while (!enough()) await work(number++);
  };
  await Promise.all(Array.from({ length: atOnce }, repeat));
}
