// What a connection asks for takes effect in the order in which it was asked, and by the rights that it has by then.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as Ably from 'ably';
import { closed, connect, options, rest, unique, until } from './support.mjs';

/** A client whose tokens have the rights that `rights.now` names at the time. */
async function changeable(t, rights, extra = {}) {
  const issuer = rest();
  const authCallback = (_, done) => {
    issuer.auth.requestToken({ clientId: 'alice', capability: JSON.stringify(rights.now) }).then((token) => done(null, token), done);
  };
  const client = new Ably.Realtime({ ...options(), key: undefined, clientId: 'alice', authCallback, ...extra });
  t.after(() => closed(client));
  await client.connection.whenState('connected');
  return client;
}

function arrived(channel, got, count) {
  return until(`${count} messages`, (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => got.length >= count, {
    describe: () => got,
  });
}

test('order: a publish right after subscribe() comes back, sixty times', async (t) => {
  const client = connect(t, 'alice');
  await client.connection.whenState('connected');
  const channels = Array.from({ length: 60 }, () => client.channels.get(unique('plain')));
  const all = channels.map(async (channel, index) => {
    const got = [];
    const attached = channel.subscribe(({ data }) => got.push(data));
    const published = channel.publish('n', String(index));
    await Promise.all([attached, published]);
    await arrived(channel, got, 1);
    assert.deepEqual(got, [String(index)]);
  });
  await Promise.all(all);
});

test('order: who has entered is among the members, a hundred times', async (t) => {
  const client = connect(t, 'alice');
  for (let round = 0; round < 100; round += 1) {
    const channel = client.channels.get(unique('plain'));
    await channel.attach();
    await channel.presence.enter('here');
    assert.deepEqual((await channel.presence.get()).map(({ clientId }) => clientId), ['alice']);
  }
});

test('order: a rewind holds what was acknowledged before, and nothing of it comes twice', async (t) => {
  const [publisher, reader] = [connect(t, 'alice'), connect(t, 'bob')];
  const other = connect(t, 'eve', {}, 1);
  for (let round = 0; round < 20; round += 1) {
    const name = unique('plain');
    // So that the gateway of the reader follows the channel already.
    await publisher.channels.get(name).attach();
    for (const data of ['one', 'two']) await other.channels.get(name).publish('n', data);
    const got = [];
    const channel = reader.channels.get(name, { params: { rewind: '1' } });
    await channel.subscribe(({ data }) => got.push(data));
    await channel.publish('n', 'three');
    await arrived(channel, got, 2);
    assert.deepEqual(got, ['two', 'three']);
  }
});

test('rights: authorize() with more rights widens attached channels at once', async (t) => {
  const name = unique('plain');
  const rights = { now: { 'plain:*': ['subscribe'] } };
  const client = await changeable(t, rights);
  const channel = client.channels.get(name);
  const changes = [];
  const got = [];
  await channel.subscribe(({ data }) => got.push(data));
  channel.on((change) => changes.push(change.current));
  assert.deepEqual(channel.modes.sort(), ['presence_subscribe', 'subscribe']);
  await assert.rejects(channel.publish('n', 'too early'), { code: 40160 });
  rights.now = { 'plain:*': ['publish', 'subscribe', 'presence'] };
  await client.auth.authorize();
  await channel.publish('n', 'x');
  await channel.presence.enter('here');
  await arrived(channel, got, 1);
  assert.deepEqual(got, ['x']);
  assert.deepEqual(channel.modes.sort(), ['presence', 'presence_subscribe', 'publish', 'subscribe']);
  assert.deepEqual(changes, []);
  const members = [];
  await channel.presence.subscribe(({ clientId }) => members.push(clientId));
  await channel.presence.update('still here');
  await until('the member', (check) => (channel.presence.subscribe(check), () => channel.presence.unsubscribe(check)), () => members.length);
  assert.deepEqual((await channel.presence.get()).map(({ clientId }) => clientId), ['alice']);
});

test('rights: the modes that were asked for stay the most that is granted', async (t) => {
  const rights = { now: { 'plain:*': ['subscribe'] } };
  const client = await changeable(t, rights);
  const channel = client.channels.get(unique('plain'), { modes: ['SUBSCRIBE', 'PRESENCE'] });
  await channel.attach();
  rights.now = { 'plain:*': ['*'] };
  await client.auth.authorize();
  await channel.presence.enter();
  await assert.rejects(channel.publish('n', 'x'), { code: 40165 });
});

test('rights: narrower, then wider again', async (t) => {
  const name = unique('plain');
  const rights = { now: { 'plain:*': ['*'] } };
  const client = await changeable(t, rights);
  const channel = client.channels.get(name);
  const got = [];
  await channel.subscribe(({ data }) => got.push(data));
  rights.now = { 'plain:*': ['publish'] };
  await client.auth.authorize();
  await channel.publish('n', 'unheard');
  rights.now = { 'plain:*': ['publish', 'subscribe'] };
  await client.auth.authorize();
  await channel.publish('n', 'heard');
  await arrived(channel, got, 1);
  assert.deepEqual(got, ['heard']);
});
