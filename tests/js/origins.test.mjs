// Pages of other origins in a real browser, against a `dev` on this machine and a gateway behind a proxy that knows the
// user by what the browser sends by itself, as a client certificate or a cookie.
// HOSTED: the port of an application that carries the gateway at /chat and knows its users by a cookie.
// DEV, GATEWAY: addresses; ALLOWED: the origin that the second one allows; CHROMIUM: the browser; KEY: of GATEWAY.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { build } from 'vite';

const { HOSTED, DEV, GATEWAY, ALLOWED, CHROMIUM, KEY } = process.env;
const DEV_KEY = 'dev.local:development-secret';
const FRIEND = new URL(ALLOWED).hostname;
const NAMES = ['evil.example', FRIEND, `*.${FRIEND}`].map((name) => `MAP ${name} 127.0.0.1`).join(',');
const ABLY = new URL('./node_modules/ably/build/ably.min.js', import.meta.url);

let browser, pages, port, proxy, proxied;

/** Names the browser's user to the gateway, whatever page asks. */
function authenticatingProxy() {
  const { hostname, port: behind } = new URL(GATEWAY);
  const server = http.createServer((request, response) => {
    const headers = { ...request.headers, 'x-user': 'ann' };
    const asked = http.request({ hostname, port: behind, path: request.url, method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    asked.on('error', () => response.destroy());
    request.pipe(asked);
  });
  server.on('upgrade', (request, socket) => {
    const upstream = net.connect(Number(behind), hostname, () => {
      const lines = Object.entries({ ...request.headers, 'x-user': 'ann' }).map(([name, value]) => `${name}: ${value}`);
      upstream.write(`GET ${request.url} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
      socket.pipe(upstream).pipe(socket);
    });
    socket.on('error', () => upstream.destroy());
    upstream.on('error', () => socket.destroy());
  });
  return server;
}

/** The published clients of the front ends, for a page: `window.Clients`. */
async function clients() {
  const entry = fileURLToPath(new URL('./browser-clients.mjs', import.meta.url));
  const lib = { entry, formats: ['iife'], name: 'Clients', fileName: 'clients' };
  const [{ output }] = await build({ configFile: false, logLevel: 'error', build: { write: false, minify: false, lib }, define: { 'process.env.NODE_ENV': '"production"' } });
  return output[0].code;
}

before(async () => {
  proxy = authenticatingProxy();
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  proxied = `http://127.0.0.1:${proxy.address().port}`;
  const scripts = { '/ably.js': await readFile(ABLY), '/clients.js': await clients() };
  pages = http.createServer((request, response) => {
    const script = scripts[request.url];
    response.writeHead(200, { 'content-type': script ? 'text/javascript' : 'text/html' });
    response.end(script ?? '<!doctype html><script src="/ably.js"></script>');
  });
  await new Promise((resolve) => pages.listen(Number(new URL(ALLOWED).port), '127.0.0.1', resolve));
  port = pages.address().port;
  browser = await chromium.launch({
    executablePath: CHROMIUM,
    // A page's own rules are tested, not Chromium's guard of the local network, which not every browser has.
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', `--host-resolver-rules=${NAMES}`,
      '--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests,PrivateNetworkAccessSendPreflights'],
  });
});
after(async () => {
  await browser.close();
  for (const server of [pages, proxy]) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

/** A page of an origin. */
async function open(t, origin) {
  const context = await browser.newContext();
  t.after(() => context.close());
  context.setDefaultTimeout(30_000);
  const page = await context.newPage();
  await page.goto(origin);
  return page;
}

/** Everything a page may try without knowing a secret: what it could read, and what its websocket got first. */
function attack(page, target, key, session) {
  return page.evaluate(async ({ target, key, session }) => {
    const found = {};
    const basic = `Basic ${btoa(key)}`;
    const input = JSON.stringify({ name: 'ai-input', data: 'x',
      extras: { ai: { transport: { role: 'user', 'codec-message-id': crypto.randomUUID?.() ?? String(Math.random()) }, codec: { kind: 'user-message' } } } });
    const read = async (name, path, options) => {
      try {
        const response = await fetch(target + path, options);
        found[name] = response.type === 'opaque' ? 'opaque' : response.status;
      } catch {
        found[name] = 'blocked';
      }
    };
    await read('config', '/config.json');
    await read('config opaque', '/config.json', { mode: 'no-cors' });
    await read('conversation', `/v1/sessions/${session}/messages`, { headers: { authorization: basic } });
    await read('conversation by query', `/v1/sessions/${session}/messages?key=${key}`);
    await read('conversation with cookies', `/v1/sessions/${session}/messages`, { credentials: 'include' });
    await read('send', `/channels/${session}/messages?key=${key}`, { method: 'POST', mode: 'no-cors', body: input });
    await read('send with cookies', `/channels/${session}/messages`,
      { method: 'POST', mode: 'no-cors', credentials: 'include', body: input });
    await read('metrics', '/metrics');
    for (const [name, query] of [['websocket', `&key=${key}`], ['websocket with cookies', '']]) {
      found[name] = await new Promise((resolve) => {
        const socket = new WebSocket(`${target.replace('http', 'ws')}/?v=6&format=json${query}`);
        socket.onmessage = (event) => resolve(JSON.parse(event.data).action);
        socket.onerror = () => resolve('refused');
      });
    }
    return found;
  }, { target, key, session });
}

const messages = async (target, session, headers) =>
  (await fetch(`${target}/channels/${session}/messages`, { headers })).json();
const basic = (key) => ({ authorization: `Basic ${btoa(key)}` });

test('a page of another origin does not drive the gateway of this machine', async (t) => {
  const page = await open(t, `http://evil.example:${port}/`);
  const found = await attack(page, DEV, DEV_KEY, 'other-origin');
  assert.deepEqual(found, {
    config: 'blocked', 'config opaque': 'blocked', conversation: 'blocked', 'conversation by query': 'blocked',
    'conversation with cookies': 'blocked', send: 'opaque', 'send with cookies': 'opaque', metrics: 'blocked',
    websocket: 9, 'websocket with cookies': 9,
  });
  assert.deepEqual(await messages(DEV, 'other-origin', basic(DEV_KEY)), [], 'nothing was sent');
});

test('nor does a page whose own name points to this machine', async (t) => {
  const rebound = `http://evil.example:${new URL(DEV).port}`;
  const page = await open(t, `${rebound}/`);
  const found = await attack(page, rebound, DEV_KEY, 'rebound');
  for (const [name, result] of Object.entries(found)) assert.ok(['refused', 403].includes(result), `${name}: ${result}`);
  assert.deepEqual(await messages(DEV, 'rebound', basic(DEV_KEY)), [], 'nothing was sent');
});

test('a front end on another port of this machine may', async (t) => {
  const page = await open(t, `http://localhost:${port}/`);
  const found = await attack(page, DEV, DEV_KEY, 'front-end');
  assert.equal(found.config, 'blocked', 'the configuration is for the page of the gateway only');
  assert.deepEqual([found.conversation, found['conversation by query'], found.send, found.websocket], [200, 200, 'opaque', 4]);
  assert.ok((await messages(DEV, 'front-end', basic(DEV_KEY))).some((one) => one.name === 'ai-input'));
  assert.deepEqual(await converse(page, DEV, DEV_KEY), ['hello']);
});

/** Publishes and reads with the unmodified SDK: its websocket, and its REST with the header `Authorization`. */
const converse = (page, target, key) => page.evaluate(async ({ target, key }) => {
  const { hostname, port } = new URL(target);
  const client = new window.Ably.Realtime({ endpoint: hostname, port: Number(port), tls: false, key, clientId: 'bob', useTokenAuth: true });
  const channel = client.channels.get(`sdk-${Math.random()}`);
  await channel.attach();
  await channel.publish('note', 'hello');
  const page = await channel.history();
  client.close();
  return page.items.map((item) => item.data);
}, { target, key });

test('what a proxy knows of the user counts for pages of allowed origins only', async (t) => {
  const foreign = await attack(await open(t, `http://evil.example:${port}/`), proxied, 'app.key:wrong', 'ambient-evil');
  for (const [name, result] of Object.entries(foreign)) assert.ok(['opaque', 'blocked', 401, 404, 9].includes(result), `${name}: ${result}`);
  assert.deepEqual(await messages(GATEWAY, 'ambient-evil', basic(KEY)), [], 'nothing was sent');
  const allowed = await attack(await open(t, `${ALLOWED}/`), proxied, KEY, 'ambient-friend');
  assert.deepEqual([allowed['conversation with cookies'], allowed['websocket with cookies']], [200, 4]);
  const sent = await messages(GATEWAY, 'ambient-friend', basic(KEY));
  assert.ok(sent.some((one) => one.clientId === 'ann'), 'sent as the user');
});

test('the unmodified SDK with credentials of its own works on a page of any origin', async (t) => {
  assert.deepEqual(await converse(await open(t, `http://evil.example:${port}/`), GATEWAY, KEY), ['hello']);
});

/** What a page of `useChat` or AG-UI asks from another origin, as the browser lets it: status and the first of its events. */
function frontEnds(page, target, session, options) {
  return page.evaluate(async ({ target, session, options }) => {
    const id = crypto.randomUUID?.() ?? String(Math.random());
    const ui = { messages: [{ id, role: 'user', parts: [{ type: 'text', text: 'hi' }] }], trigger: 'submit-message' };
    const run = { threadId: session, runId: id, protocolVersion: '1.0', messages: [{ id: `${id}-run`, role: 'user', content: 'hi' }] };
    const found = {};
    for (const [name, path, body] of [['useChat', `/v1/ui/${session}`, ui], ['AG-UI', '/v1/agui', run]]) {
      try {
        const headers = { 'content-type': 'application/json', ...options.headers };
        const response = await fetch(target + path, { method: 'POST', body: JSON.stringify(body), ...options, headers });
        const text = response.ok ? (await response.body.pipeThrough(new TextDecoderStream()).getReader().read()).value : '';
        found[name] = [response.status, /"type":"([^"]+)"/.exec(text)?.[1] ?? ''];
        await fetch(`${target}/v1/agui/stop`, { method: 'POST', body: JSON.stringify({ threadId: session }), ...options, headers });
      } catch (error) {
        found[name] = 'blocked';
      }
    }
    return found;
  }, { target, session, options });
}

test('UIM-35: pages of other origins with a token of their own, and with cookies where that is allowed', async (t) => {
  const [evil, friend] = await Promise.all([open(t, `http://evil.example:${port}/`), open(t, ALLOWED)]);
  const streams = { useChat: [200, 'start'], 'AG-UI': [200, 'RUN_STARTED'] };
  // A key that the page knows itself counts from anywhere.
  const bearer = { headers: { authorization: `Bearer ${KEY}` } };
  for (const page of [evil, friend]) assert.deepEqual(await frontEnds(page, GATEWAY, 'bound:own-key', bearer), streams);
  // What the browser adds by itself counts for allowed pages only.
  const cookies = { credentials: 'include' };
  assert.deepEqual(await frontEnds(friend, proxied, 'bound:cookies', cookies), streams);
  assert.deepEqual(await frontEnds(evil, proxied, 'bound:stolen', cookies), { useChat: 'blocked', 'AG-UI': 'blocked' });
  const said = await fetch(`${GATEWAY}/v1/sessions/bound:stolen/messages`, { headers: basic(KEY) });
  assert.deepEqual((await said.json()).messages, [], 'nothing was sent');
});

/** A message by each of the published clients, with what the browser adds: what was heard first, or why nothing. */
async function converse3(page, target) {
  await page.addScriptTag({ url: '/clients.js' });
  return page.evaluate(async ({ target, session }) => {
    const { DefaultChatTransport, HttpAgent, OpenAI } = window.Clients;
    const including = (address, init) => fetch(address, { ...init, credentials: 'include' });
    const found = {};
    const attempt = async (name, work) => {
      found[name] = await work().catch((error) => error.status ?? error.statusCode ?? 'blocked');
    };
    const chatId = `${session}-ui`;
    await attempt('useChat', async () => {
      const transport = new DefaultChatTransport({ api: `${target}/api/chat`, credentials: 'include', headers: { 'x-tenant': 'acme' } });
      const message = { id: `m${Math.random()}`, role: 'user', parts: [{ type: 'text', text: 'script: tokens=400 rate=40' }] };
      const stream = await transport.sendMessages({ chatId, trigger: 'submit-message', messages: [message] });
      const { value } = await stream.getReader().read();
      const again = await transport.reconnectToStream({ chatId });
      return [value.type, (await again.getReader().read()).value.type];
    });
    await attempt('AG-UI', async () => {
      const agent = new HttpAgent({ url: `${target}/v1/agui`, threadId: `${session}-agui`, fetch: including });
      const types = [];
      agent.subscribe({ onEvent: ({ event }) => void types.push(event.type) });
      agent.addMessage({ id: `m${Math.random()}`, role: 'user', content: 'script: tokens=2' });
      await agent.runAgent();
      return [types[0], types.at(-1)];
    });
    await attempt('Responses', async () => {
      const client = new OpenAI({ baseURL: `${target}/v1`, apiKey: 'none', dangerouslyAllowBrowser: true, fetch: including, maxRetries: 0 });
      const stream = await client.responses.create({ model: 'assistant', conversation: `${session}-openai`, input: 'script: tokens=2', stream: true });
      const types = [];
      for await (const { type } of stream) types.push(type);
      return [types[0], types.at(-1)];
    });
    await fetch(`${target}/api/chat/${encodeURIComponent(chatId)}/stop`, { method: 'POST', credentials: 'include' }).catch(() => {});
    return found;
  }, { target, session: `bound:c${Math.random().toString(36).slice(2)}` });
}

test("UIM-35: the published clients with an application's own cookie, on its own pages and on no one else's", async (t) => {
  const target = `http://api.${FRIEND}:${HOSTED}/chat`;
  const cookie = { name: 'session', value: 'of-ann', domain: `api.${FRIEND}`, path: '/', httpOnly: true, sameSite: 'Lax' };
  const visit = async (origin) => {
    const page = await open(t, origin);
    await page.context().addCookies([cookie]);
    return converse3(page, target);
  };
  assert.deepEqual(await visit(ALLOWED), {
    useChat: ['start', 'start'],
    'AG-UI': ['RUN_STARTED', 'RUN_FINISHED'],
    Responses: ['response.created', 'response.completed'],
  });
  // A page of the same site gets the cookie along, but is not one of those that are allowed.
  for (const origin of [`http://other.${FRIEND}:${port}/`, `http://evil.example:${port}/`]) {
    const found = await visit(origin);
    for (const [name, result] of Object.entries(found)) assert.ok(['blocked', 401, 404].includes(result), `${origin} ${name}: ${result}`);
  }
});
