// Tokens and rights as the unmodified SDKs use them. KEY_* sign the tokens that the callbacks hand out.
import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { createClientSession } from '@ably/ai-transport/vercel';
import * as Ably from 'ably';
import { begun, closed, ended, join, options, PORTS, question, said, send, tokens, unique, until } from './support.mjs';

const [KEY_NAME, SECRET] = process.env.KEY.split(':');
const [REVOCABLE, REVOCABLE_SECRET] = process.env.REVOCABLE_KEY.split(':');

function jwt(clientId, { ttl = 60, capability, name = KEY_NAME, secret = SECRET } = {}) {
  const now = Date.now() / 1000;
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const payload = { iat: now, exp: now + ttl, jti: randomUUID(), 'x-ably-clientId': clientId };
  if (capability) payload['x-ably-capability'] = JSON.stringify(capability);
  const signed = `${part({ alg: 'HS256', typ: 'JWT', kid: name })}.${part(payload)}`;
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

/** A client whose tokens come from `make`, which is given how often it was asked before. */
function connectWith(t, make, extra = {}) {
  const asked = [];
  const authCallback = (params, callback) => {
    asked.push(Date.now());
    callback(null, make(asked.length - 1));
  };
  const client = new Ably.Realtime({ ...options(extra), key: undefined, authCallback });
  t.after(() => closed(client));
  const changes = [];
  client.connection.on((change) => changes.push(change));
  return { client, asked, changes, states: () => changes.map((change) => change.current) };
}

async function session(t, client, channelName) {
  const opened = createClientSession({ client, channelName });
  const errors = [];
  opened.on('error', (error) => errors.push(error));
  await opened.connect();
  return { client, session: opened, view: opened.view, tree: opened.tree, channelName, clientId: 'alice', errors };
}

/** Wait for something that announces itself nowhere. */
function watched(what, condition, patience = 30_000) {
  const subscribe = (check) => {
    const timer = setInterval(check, 5);
    return () => clearInterval(timer);
  };
  return until(what, subscribe, condition, { patience });
}

const connected = (client) => client.connection.whenState('connected');

test('AUT-1: an Ably JWT from an authCallback is enough', async (t) => {
  const { client } = connectWith(t, () => jwt('alice'));
  await connected(client);
  assert.equal(client.auth.clientId, 'alice');
});

test('AUT-5: tokens of 5 s during a turn of 9 s: exact, without a reconnect', async (t) => {
  const { client, asked, states } = connectWith(t, () => jwt('alice', { ttl: 5 }));
  const alice = await session(t, client, unique());
  const id = client.connection.id;
  const run = await send(alice, 'script: tokens=180 rate=20');
  await begun(run);
  await ended2(alice, run.runId, 20_000);
  assert.equal(said(alice, run.runId), tokens(180));
  assert.ok(asked.length >= 3, `asked ${asked.length} times`);
  assert.equal(client.connection.id, id);
  assert.deepEqual(states().filter((state) => state !== 'connecting' && state !== 'connected'), []);
  assert.deepEqual(alice.errors, []);
});

function ended2(member, runId, patience) {
  const subscribe = (check) => {
    const offs = [member.view.on('update', check), member.tree.on('run', check)];
    return () => offs.forEach((off) => off());
  };
  return until(`turn ${runId} ends`, subscribe, () => member.tree.getRunNode(runId)?.state.status === 'complete', {
    patience,
  });
}

test('AUT-6: authorize() with fewer rights: the next publish is refused, reading goes on', async (t) => {
  const name = unique('plain');
  let capability = { '*': ['*'] };
  const { client, states } = connectWith(t, () => jwt('alice', { capability }));
  const channel = client.channels.get(name);
  const heard = [];
  await channel.subscribe((message) => heard.push(message.data));
  await channel.publish('x', 'before');
  capability = { [name]: ['subscribe'] };
  await client.auth.authorize();
  await assert.rejects(channel.publish('x', 'after'), (error) => [40160, 40165].includes(error.code));
  assert.equal(channel.state, 'attached');
  const other = connectWith(t, () => jwt('bob')).client;
  await other.channels.get(name).publish('x', 'from bob');
  await watched('bob is heard', () => heard.includes('from bob'));
  assert.ok(!states().includes('disconnected'));
});

test('AUT-9: with subscribe and turn-cancel only, a turn can be stopped and nothing else', async (t) => {
  const name = unique();
  const owner = await join(t, 'owner', name);
  const capability = { [name]: ['subscribe', 'history', 'turn-cancel'] };
  const { client } = connectWith(t, () => jwt('boss', { capability }));
  const boss = await session(t, client, name);
  const run = await send(owner, 'script: tokens=5000 rate=50');
  await begun(run);
  await assert.rejects(async () => {
    const refused = await boss.view.send(question('may I?'));
    await begun(refused);
  });
  await boss.session.cancel(run.runId);
  await ended(owner, run.runId, 'cancelled');
});

test('AUT-7: a revoked client is sent for a new token and resumes with it', async (t) => {
  const { client, asked, changes } = connectWith(t, () => jwt('eve', { name: REVOCABLE, secret: REVOCABLE_SECRET }));
  await connected(client);
  // Tokens of the same moment would be revoked too.
  const issuedBefore = Date.now();
  const answer = await fetch(`http://127.0.0.1:${PORTS[1 % PORTS.length]}/keys/${REVOCABLE}/revokeTokens`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      authorization: `Basic ${Buffer.from(process.env.REVOCABLE_KEY).toString('base64')}`,
    },
    body: JSON.stringify({ targets: ['clientId:eve'], issuedBefore }),
  });
  assert.equal(answer.status, 201);
  const revoked = () => changes.find((change) => change.reason?.code === 40141);
  await watched('the revocation', revoked, 2000);
  await watched('a new connection', () => changes.at(-1).current === 'connected' && changes.indexOf(revoked()) < changes.length - 1);
  assert.equal(asked.length, 2);
});

test('AUT-11: a token that is never good is not asked for in a tight loop', async (t) => {
  for (const [bad, code] of [[jwt('alice', { secret: 'wrong' }), 40144], [jwt('alice', { ttl: -1 }), 40144]]) {
    const { client, asked, changes } = connectWith(t, () => bad);
    await watched('a refusal', () => changes.some((change) => change.reason?.code === code));
    await new Promise((resolve) => setTimeout(resolve, 3000));
    // The SDK's own pause between attempts is 15 s: 10 a minute are 2 or 3 within the first seconds.
    assert.ok(asked.length <= 3, `asked ${asked.length} times`);
    assert.equal(client.connection.state, 'disconnected');
  }
  const { client, changes } = connectWith(t, () => jwt('alice', { name: 'no.such' }));
  await client.connection.whenState('failed');
  assert.equal(changes.at(-1).reason.code, 40101);
});
