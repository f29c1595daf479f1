// The golden transcripts, published into a real gateway, and read by the unmodified client SDK with pages of many sizes:
// those who join late see what all saw (protocol reference of the AI messages, section 7.7).
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createClientSession } from '@ably/ai-transport';
import { ResponsesCodec } from '@ably/ai-transport/openai';
import { createUIMessageCodec } from '@ably/ai-transport/vercel';
import { connect, rest, unique } from './support.mjs';

const FOLDER = new URL('../vectors/ai-transport/', import.meta.url);
const PAGE_SIZES = [1, 3, 7, 20, 100];
const CODECS = { 'vercel-ui-message': createUIMessageCodec(), 'openai-responses': ResponsesCodec };
const transcripts = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.json'))
  .map((name) => ({ name: name.replace('.json', ''), ...JSON.parse(readFileSync(new URL(name, FOLDER), 'utf8')) }));

/** Replace serials in strings anywhere inside `value`: headers and views repeat them. */
function renamed(value, names) {
  if (typeof value === 'string') return names.get(value) ?? value;
  if (Array.isArray(value)) return value.map((item) => renamed(item, names));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, renamed(item, names)]));
}

/** The messages of one publish, as they are sent. */
function bodyOf(lines, names) {
  return lines.map(({ name, data, encoding, clientId, extras, action }) =>
    renamed({ name, data, encoding, clientId, extras, ...(action ? { action } : {}) }, names),
  );
}

async function send(server, method, path, body) {
  const answer = await server.request(method, path, 3, {}, body);
  assert.ok(answer.success, `${method} ${path}: ${answer.errorCode} ${answer.errorMessage}`);
  return answer.items[0];
}

/** Publish everything that was not refused when it was recorded; gives recorded serial → serial. */
async function replay(server, channel, wire) {
  const names = new Map();
  const path = `/channels/${encodeURIComponent(channel)}/messages`;
  const lines = wire.filter(({ op }) => op !== 'nacked');
  for (let at = 0; at < lines.length; ) {
    const line = lines[at];
    const group = lines.slice(at, at + (line.batch?.of ?? 1));
    at += group.length;
    if (line.op === 'publish') {
      const { serials } = await send(server, 'post', path, bodyOf(group, names));
      group.forEach(({ serial }, index) => names.set(serial, serials[index]));
    } else {
      const [change] = bodyOf(group, names);
      const serial = encodeURIComponent(names.get(line.serial));
      const { versionSerial } = await send(server, 'patch', `${path}/${serial}`, change);
      names.set(line.version.serial, versionSerial);
    }
  }
  return names;
}

function plain({ code, statusCode, message }) {
  return { code, statusCode, message };
}

async function load(client, codec, channelName, historyPageSize) {
  const session = createClientSession({ client, channelName, historyPageSize, codec: CODECS[codec] });
  const errors = [];
  session.on('error', (error) => errors.push(String(error)));
  await session.connect();
  await session.view.loadOlder(1000);
  assert.equal(session.view.hasOlder(), false);
  assert.deepEqual(errors, []);
  const view = session.view.getMessages().map(({ codecMessageId, message }) => ({ codecMessageId, message }));
  const runs = session.view.runs();
  await session.close();
  // As the recordings are: plain values, absent ones left out.
  return JSON.parse(JSON.stringify({ view, runs }, (_, value) => (value instanceof Error ? plain(value) : value)));
}

test('HIS-2 HIS-4 late joiners read every transcript exactly, whatever the page size', async (t) => {
  assert.ok(transcripts.length > 50);
  const server = rest({ defaultTokenParams: { clientId: '*' } });
  const readers = PAGE_SIZES.map((_, index) => connect(t, `late-${index}`, {}, index));
  for (const { name, codec, wire, final_view, final_runs, late_joiner } of transcripts) {
    const channel = unique('plain');
    const names = await replay(server, channel, wire);
    const view = renamed(late_joiner?.view ?? final_view, names);
    const runs = renamed(late_joiner?.runs ?? final_runs, names);
    await t.test(name, async () => {
      const loaded = await Promise.all(PAGE_SIZES.map((size, index) => load(readers[index], codec, channel, size)));
      loaded.forEach((found, index) => assert.deepEqual(found, { view, runs }, `pages of ${PAGE_SIZES[index]}`));
    });
  }
});
