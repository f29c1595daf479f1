// What the suites share. The environment says where to connect: PORTS (comma separated), KEY.
import { createClientTransport } from 'selfhost-transport/vercel';
import * as Ably from 'ably';

export const KEY = process.env.KEY;
export const PORTS = (process.env.PORTS ?? '').split(',').map(Number);
const PATIENCE_MS = 10_000;

export function connect(t, clientId, extra = {}) {
  const client = new Ably.Realtime({
    key: KEY, endpoint: '127.0.0.1', port: PORTS[0], tls: false, disableConnectivityCheck: true, logLevel: 0,
    ...(clientId ? { clientId } : {}), ...extra,
  });
  t.after(async () => {
    const { connection } = client;
    if (connection.state === 'closed' || connection.state === 'failed') return;
    const done = connection.whenState('closed');
    client.close();
    await done;
  });
  return client;
}

let count = 0;

export function unique(namespace = 'chat') {
  count += 1;
  return `${namespace}:${Date.now().toString(36)}-${process.pid}-${count}`;
}

/** A transport of `name` for `clientId`, with what it has reported. */
export function join(t, clientId, name, { extra = {}, ...options } = {}) {
  const client = connect(t, clientId, extra);
  const channel = client.channels.get(name);
  const transport = createClientTransport({ channel, ...options });
  t.after(() => transport.close());
  const turns = [];
  const errors = [];
  transport.tree.on('turn', (event) => turns.push(event));
  transport.on('error', (error) => errors.push(error));
  return { client, channel, transport, turns, errors, name, clientId };
}

export function words(n, rate = 200) {
  return { id: crypto.randomUUID(), role: 'user', parts: [{ type: 'text', text: `script: tokens=${n} rate=${rate}` }] };
}

export function said(n) {
  return Array.from({ length: n }, (_, index) => `${index} `).join('');
}

export function textOf(message) {
  return message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('');
}

export function transcript(transport) {
  return transport.view.getMessages().map((message) => [message.role, textOf(message)]);
}

/** The text that the answer of `turnId` has so far. */
export function answerOf(transport, turnId) {
  const nodes = transport.view.flattenNodes().filter((node) => node.headers['run-id'] === turnId && node.message.role === 'assistant');
  return nodes.map((node) => textOf(node.message)).join('');
}

export async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return { chunks, text: chunks.map((chunk) => (chunk.type === 'text-delta' ? chunk.delta : '')).join('') };
}

/** Resolves when `condition` holds; it is looked at whenever the transport tells of a change. */
export function until(transport, what, condition, patience = PATIENCE_MS) {
  return new Promise((resolve, reject) => {
    const offs = [];
    const finish = (settle, value) => {
      clearTimeout(timer);
      offs.forEach((off) => off());
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
    const timer = setTimeout(() => finish(reject, new Error(`not within ${patience} ms: ${what}`)), patience);
    offs.push(transport.view.on('update', check), transport.tree.on('update', check), transport.tree.on('turn', check), transport.tree.on('ably-message', check));
    check();
  });
}

/** Resolves when the answer to a turn has begun to be said. */
export function speaking(transport, turnId) {
  return until(transport, `words of ${turnId}`, () => answerOf(transport, turnId).length > 4);
}

export function endOf(member, turnId) {
  const find = () => member.turns.find((event) => event.type === 'x-ably-turn-end' && event.turnId === turnId);
  return until(member.transport, `the end of ${turnId}`, find);
}

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
