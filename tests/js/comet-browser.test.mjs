// The unmodified SDK in a browser whose network lets no websocket through: it falls back to polling by itself.
import assert from 'node:assert/strict';
import http from 'node:http';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { join, KEY, PORTS, status, seen, startTurn, tokens, unique } from './support.mjs';

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--no-first-run'];

let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
});
after(() => browser.close());

/** A proxy in front of a gateway that passes plain requests on, and websockets only once `open` is set. */
async function proxy(t) {
  const network = { open: false, upgrades: 0, requests: [] };
  const agent = new http.Agent({ keepAlive: true });
  const options = ({ method, url, headers }) => ({ host: '127.0.0.1', port: PORTS[0], method, path: url, headers, agent });
  const server = http.createServer((request, response) => {
    network.requests.push(request.url.split('?')[0]);
    const passed = http.request(options(request), (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy());
    response.on('close', () => passed.destroy());
    request.pipe(passed);
  });
  server.on('upgrade', (request, socket) => {
    network.upgrades += 1;
    if (!network.open) return socket.destroy();
    const passed = http.request({ ...options(request), agent: undefined });
    passed.on('upgrade', (answer, other, head) => {
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`);
      // The first frame may have come with the answer.
      socket.write(head);
      other.pipe(socket).pipe(other);
      for (const end of [other, socket]) end.on('error', () => {});
      socket.on('close', () => other.destroy());
      other.on('close', () => socket.destroy());
    });
    passed.end();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => (server.closeAllConnections(), server.close(), agent.destroy()));
  return { network, port: server.address().port };
}

/** A page with a connected client, attached to `name`, that gathers what it hears. */
async function open(t, port, name, options = {}) {
  const page = await browser.newPage();
  t.after(() => page.close());
  const trouble = [];
  page.on('pageerror', (error) => trouble.push(String(error)));
  t.after(() => assert.deepEqual(trouble, []));
  await page.goto(`http://127.0.0.1:${port}/healthz`);
  await page.addScriptTag({ path: path.join(import.meta.dirname, 'node_modules/ably/build/ably.js') });
  await page.evaluate(
    async ([key, port, name, options]) => {
      const where = { endpoint: '127.0.0.1', port, tls: false, disableConnectivityCheck: true };
      const check = { wsConnectivityCheckUrl: `ws://127.0.0.1:${port}/` };
      window.client = new Ably.Realtime({ key, clientId: 'browser', ...where, ...check, ...options });
      window.channel = client.channels.get(name);
      window.heard = [];
      window.text = '';
      window.manager = client.connection.connectionManager;
      window.transport = () => manager.activeProtocol.getTransport().shortName;
      await channel.subscribe((message) => {
        heard.push(message.name);
        if (message.extras?.ai?.transport?.stream !== 'true') return;
        text = message.action === 'message.append' ? text + message.data : message.data;
      });
    },
    [KEY, port, name, options],
  );
  return page;
}

test('in a browser without websockets: the SDK falls back to polling, and everything works', async (t) => {
  const { network, port } = await proxy(t);
  const name = unique();
  const page = await open(t, port, name);
  assert.equal(await page.evaluate('transport()'), 'xhr_polling');
  assert.ok(network.upgrades > 0, 'websockets were not tried');
  const me = await join(t, 'alice', name, { gateway: 1 });
  const run = await startTurn(me, 'script: tokens=200 rate=200');
  await page.waitForFunction((text) => window.text === text, tokens(200), { timeout: 30_000 });
  await seen(me, 'the end', () => status(me, run.runId) === 'complete');
  const second = await startTurn(me, 'script: tokens=5000 rate=50');
  await page.waitForFunction(() => window.text.length > 30 && window.text.length < 500);
  await page.evaluate((runId) => channel.publish({ name: 'ai-cancel', extras: { ai: { transport: { 'run-id': runId } } } }), second.runId);
  await page.waitForFunction(() => heard.at(-1) === 'ai-run-end');
  await seen(me, 'the cancel', () => status(me, second.runId) === 'cancelled');
  const [members, kept, ping] = await page.evaluate(async () => {
    await channel.presence.enter('here');
    const members = (await channel.presence.get()).map(({ clientId }) => clientId);
    return [members, (await channel.history({ limit: 1 })).items.length, await client.connection.ping()];
  });
  assert.deepEqual([members.includes('browser'), kept > 0, ping >= 0], [true, true, true]);
  await page.evaluate(() => (client.close(), client.connection.whenState('closed')));
});

test('in a browser: up to websockets and back while a turn streams, nothing lost or doubled', async (t) => {
  const { network, port } = await proxy(t);
  const name = unique();
  const page = await open(t, port, name, { transports: ['web_socket', 'xhr_polling'], disconnectedRetryTimeout: 100 });
  const id = await page.evaluate('client.connection.id');
  const me = await join(t, 'alice', name, { gateway: 1 });
  await startTurn(me, 'script: tokens=600 rate=100');
  const used = [];
  for (const open of [true, false, true, false]) {
    network.open = open;
    used.push(
      await page.evaluate(async () => {
        manager.unpersistTransportPreference();
        manager.lastAutoReconnectAttempt = null;
        const lost = new Promise((resolve) => client.connection.once('disconnected', resolve));
        manager.disconnectAllTransports();
        await lost;
        await client.connection.whenState('connected');
        return transport();
      }),
    );
  }
  assert.deepEqual(used, ['web_socket', 'xhr_polling', 'web_socket', 'xhr_polling']);
  await page.waitForFunction((text) => window.text === text, tokens(600), { timeout: 30_000 });
  assert.equal(await page.evaluate('client.connection.id'), id);
});
