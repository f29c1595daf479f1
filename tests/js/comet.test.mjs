// Connections over HTTP requests, for networks without websockets, with the unmodified SDK: streamed in Node (its
// transport `comet`), polled as browsers do (`xhr_polling`; there it is the same requests with stream=false).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClientSession } from '@ably/ai-transport/vercel';
import { connect, eavesdrop, ended, PORTS, said, seen, startTurn, status, tokens, unique, until } from './support.mjs';

const KINDS = { streamed: {}, polled: { transportParams: { stream: false } } };

/** A client that has no websocket. */
function over(t, kind, clientId, extra = {}, gateway = 0) {
  return connect(t, clientId, { transports: ['comet'], ...KINDS[kind], ...extra }, gateway);
}

function transportOf(client) {
  return client.connection.connectionManager.activeProtocol?.getTransport().shortName;
}

function heardOf(channel, got, count) {
  return until(`${count} messages`, (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => got.length >= count, {
    describe: () => got,
  });
}

/** From now on the client reconnects by these transports alone. */
function useOnly(client, name) {
  const manager = client.connection.connectionManager;
  manager.webSocketTransportAvailable = name === 'web_socket' ? true : undefined;
  manager.baseTransport = name === 'web_socket' ? undefined : name;
  manager.unpersistTransportPreference();
}

async function joined(t, client, channelName) {
  const session = createClientSession({ client, channelName });
  const errors = [];
  session.on('error', (error) => errors.push(error));
  await session.connect();
  return { client, session, view: session.view, tree: session.tree, channelName, clientId: 'alice', errors };
}

for (const kind of Object.keys(KINDS)) {
  test(`${kind}: publish, subscribe, presence, history, ping, close`, async (t) => {
    const name = unique('plain');
    const client = over(t, kind, 'alice');
    const ear = await eavesdrop(t, name, { gateway: 1 });
    const channel = client.channels.get(name);
    const got = [];
    await channel.subscribe(({ data }) => got.push(data));
    assert.equal(transportOf(client), 'comet');
    await Promise.all(Array.from({ length: 50 }, (_, index) => channel.publish('n', String(index))));
    await heardOf(channel, got, 50);
    assert.deepEqual(got, Array.from({ length: 50 }, (_, index) => String(index)));
    await channel.publish('n', Buffer.from([0, 255]));
    await heardOf(channel, got, 51);
    assert.deepEqual([...got.at(-1)], [0, 255]);
    // The other gateway hears of it on its own time.
    const entered = new Promise((resolve) => ear.channel.presence.subscribe('enter', resolve));
    await channel.presence.enter({ is: 'here' });
    await entered;
    assert.deepEqual((await ear.channel.presence.get()).map(({ clientId, data }) => [clientId, data]), [['alice', { is: 'here' }]]);
    assert.ok((await client.connection.ping()) >= 0);
    const left = new Promise((resolve) => ear.channel.presence.subscribe('leave', resolve));
    client.close();
    const before = Date.now();
    await left;
    // At once, not after the time that members of a lost connection stay.
    assert.ok(Date.now() - before < 5000);
  });

  test(`${kind}: a turn is streamed, exact, and a cancel is final`, async (t) => {
    const me = await joined(t, over(t, kind, 'alice'), unique());
    const first = await startTurn(me, 'script: tokens=300 rate=300');
    await ended(me, first.runId, 'complete');
    assert.equal(said(me, first.runId), tokens(300));
    const ear = await eavesdrop(t, me.channelName, { gateway: 1 });
    const second = await startTurn(me, 'script: tokens=5000 rate=100');
    await seen(me, 'words', () => said(me, second.runId).length > 20);
    await second.cancel();
    await ended(me, second.runId, 'cancelled');
    await ear.hears('the end', (heard) => heard.some(({ name }) => name === 'ai-run-end'));
    const at = said(me, second.runId);
    const third = await startTurn(me, 'script: tokens=20 rate=100');
    await ended(me, third.runId, 'complete');
    assert.equal(said(me, second.runId), at);
    assert.ok(tokens(5000).startsWith(at));
    assert.deepEqual(me.errors, []);
  });

  test(`${kind}: a connection that is cut resumes where it was`, async (t) => {
    const name = unique('plain');
    const client = over(t, kind, 'alice');
    const writer = connect(t, 'bob', {}, 1).channels.get(name);
    const channel = client.channels.get(name);
    const got = [];
    await channel.subscribe(({ data }) => got.push(data));
    const { id } = client.connection;
    for (let round = 0; round < 5; round += 1) {
      client.connection.connectionManager.disconnectAllTransports();
      const pending = channel.publish('n', `own ${round}`);
      await writer.publish('n', `other ${round}`);
      await pending;
    }
    await heardOf(channel, got, 10);
    assert.equal(new Set(got).size, 10);
    assert.equal(client.connection.id, id);
  });

  test(`${kind}: what another process is asked for is a reason to resume there`, async (t) => {
    const name = unique('plain');
    const client = over(t, kind, 'alice');
    const channel = client.channels.get(name);
    const got = [];
    await channel.subscribe(({ data }) => got.push(data));
    const { id } = client.connection;
    const transport = client.connection.connectionManager.activeProtocol.getTransport();
    const again = client.connection.whenState.bind(client.connection);
    transport.sendUri = transport.sendUri.replace(`:${PORTS[0]}/`, `:${PORTS[1]}/`);
    const published = channel.publish('n', 'x');
    await new Promise((resolve) => client.connection.once('disconnected', resolve));
    await again('connected');
    await published;
    await heardOf(channel, got, 1);
    assert.deepEqual([client.connection.id, got], [id, ['x']]);
  });

  test(`${kind}: a token expires and is renewed while a message is on its way`, async (t) => {
    const name = unique('plain');
    const { rest } = await import('./support.mjs');
    const issuer = rest();
    let renewed = 0;
    const authCallback = (_, done) => {
      renewed += 1;
      issuer.auth.requestToken({ ttl: 3000, clientId: 'alice' }).then((token) => done(null, token), done);
    };
    const client = over(t, kind, 'alice', { key: undefined, authCallback });
    const channel = client.channels.get(name);
    const got = [];
    await channel.subscribe(({ data }) => got.push(data));
    await until('two renewals', (check) => {
      const timer = setInterval(check, 100);
      return () => clearInterval(timer);
    }, () => renewed >= 2);
    await channel.publish('n', 'after');
    await heardOf(channel, got, 1);
    assert.deepEqual(got, ['after']);
  });
}

test('a wrong key is refused for good, a bad token renewed', async (t) => {
  const client = connect(t, 'alice', { transports: ['comet'], key: 'app.key:wrong' });
  await client.connection.whenState('failed');
  assert.equal(client.connection.errorReason.code, 40101);
});

test('a hundred changes between websocket and requests while a turn streams: exact', async (t) => {
  const client = connect(t, 'alice', { transports: ['web_socket', 'comet'], disconnectedRetryTimeout: 50 });
  const me = await joined(t, client, unique());
  const { id } = client.connection;
  const run = await startTurn(me, 'script: tokens=1500 rate=100');
  const used = [];
  const manager = client.connection.connectionManager;
  for (let change = 0; change < 100; change += 1) {
    useOnly(client, change % 2 ? 'web_socket' : 'comet');
    manager.lastAutoReconnectAttempt = null;
    const lost = new Promise((resolve) => client.connection.once('disconnected', resolve));
    manager.disconnectAllTransports();
    await lost;
    await client.connection.whenState('connected');
    used.push(transportOf(client));
  }
  assert.deepEqual(used, Array.from({ length: 100 }, (_, change) => (change % 2 ? 'web_socket' : 'comet')));
  await seen(me, 'the end', () => status(me, run.runId) === 'complete', { patience: 30_000 });
  assert.equal(said(me, run.runId), tokens(1500));
  assert.equal(client.connection.id, id);
  assert.deepEqual(me.errors, []);
});
