// A client whose network is gone for a while, as behind a laptop's lid, with a turn in progress. The gateway's settings
// are short here: RESUME_WINDOW_MS is how far back a client resumes.
import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import { createClientSession } from '@ably/ai-transport/vercel';
import { connect, ended, join, PORTS, said, seen, startTurn, status, tokens, unique } from './support.mjs';

const WINDOW_MS = Number(process.env.RESUME_WINDOW_MS);

/** A network between the client and the gateway, that can be taken away. */
async function network(t) {
  const open = new Set();
  let up = true;
  const server = net.createServer((socket) => {
    if (!up) return socket.destroy();
    const other = net.connect(PORTS[0], '127.0.0.1');
    for (const end of [socket, other]) {
      open.add(end);
      end.on('error', () => {});
      end.on('close', () => (open.delete(end), socket.destroy(), other.destroy()));
    }
    socket.pipe(other).pipe(socket);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => (open.forEach((socket) => socket.destroy()), server.close()));
  const sleep = async (ms) => {
    up = false;
    open.forEach((socket) => socket.destroy());
    await new Promise((resolve) => setTimeout(resolve, ms)); // the time asleep itself
    up = true;
  };
  return { sleep, port: server.address().port };
}

async function sleeper(t, port, channelName) {
  const client = connect(t, 'alice', { port, disconnectedRetryTimeout: 200, suspendedRetryTimeout: 200 });
  const session = createClientSession({ client, channelName });
  const errors = [];
  session.on('error', (error) => errors.push(error));
  await session.connect();
  return { client, session, view: session.view, tree: session.tree, channelName, clientId: 'alice', errors };
}

test('asleep for less than the window: the turn goes on in the view, exact', async (t) => {
  const { sleep, port } = await network(t);
  const me = await sleeper(t, port, unique());
  const { id } = me.client.connection;
  const run = await startTurn(me, 'script: tokens=150 rate=50');
  await seen(me, 'words', () => said(me, run.runId).length > 10);
  await sleep(WINDOW_MS / 2);
  await ended(me, run.runId, 'complete');
  assert.equal(said(me, run.runId), tokens(150));
  assert.deepEqual([me.client.connection.id, me.errors], [id, []]);
});

test('asleep for longer: the client is notified, and one that loads the session again has all of it', async (t) => {
  const { sleep, port } = await network(t);
  const me = await sleeper(t, port, unique());
  const run = await startTurn(me, 'script: tokens=150 rate=50');
  await seen(me, 'words', () => said(me, run.runId).length > 10);
  const channel = me.client.channels.get(me.channelName);
  const change = new Promise((resolve) => channel.on((event) => event.current === 'attached' && !event.resumed && resolve(event)));
  await sleep(2.5 * WINDOW_MS);
  assert.equal((await change).reason?.code, 90003);
  assert.ok(me.errors.length > 0, 'the session says that it lost continuity');
  const fresh = await join(t, 'bob', me.channelName);
  await fresh.view.loadOlder(100);
  await seen(fresh, 'the whole turn', () => status(fresh, run.runId) === 'complete');
  assert.equal(said(fresh, run.runId), tokens(150));
});
