// Public methods of npm `ably` that the other suites do not call.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as Ably from 'ably';
import * as Push from 'ably/push';
import { closed, connect, eavesdrop, options, rest, unique, until } from './support.mjs';

const { REVOCABLE_KEY } = process.env;

test('channels: released and got again, listed, with their options', async (t) => {
  const client = connect(t, 'alice');
  const name = unique('plain');
  const channel = client.channels.get(name);
  await channel.attach();
  assert.equal((await channel.whenState('attached'))?.current ?? 'attached', 'attached');
  assert.throws(() => client.channels.get(name, { modes: ['SUBSCRIBE'] }), { code: 40000 });
  await channel.setOptions({ modes: ['SUBSCRIBE'] });
  assert.deepEqual(channel.modes, ['subscribe']);
  await channel.detach();
  client.channels.release(name);
  assert.notEqual(client.channels.get(name), channel);
});

test('events: on, once, off, listeners', async (t) => {
  const client = connect(t, 'alice');
  const listener = () => {};
  client.connection.on('connected', listener);
  assert.deepEqual(client.connection.listeners('connected'), [listener]);
  client.connection.off(listener);
  assert.equal(client.connection.listeners('connected')?.length ?? 0, 0);
  await client.connection.once('connected');
});

test('presence: one connection for several clients', async (t) => {
  const name = unique('plain');
  const client = connect(t, undefined);
  const ear = connect(t, 'eve', {}, 1).channels.get(name);
  const reported = [];
  await ear.presence.subscribe(({ action, clientId, data }) => reported.push([action, clientId, data]));
  const { presence } = client.channels.get(name);
  await presence.enterClient('ann', 1 + '');
  await presence.updateClient('ann', '2');
  await presence.enterClient('bob');
  await presence.leaveClient('ann', '3');
  await until('all', (check) => (ear.presence.subscribe(check), () => ear.presence.unsubscribe(check)), () => reported.length === 4, { describe: () => reported });
  assert.deepEqual(reported, [['enter', 'ann', '1'], ['update', 'ann', '2'], ['enter', 'bob', undefined], ['leave', 'ann', '3']]);
  assert.deepEqual((await ear.presence.get({ clientId: 'bob' })).map(({ clientId }) => clientId), ['bob']);
});

test('auth: revokeTokens ends the connections of a client', async (t) => {
  const issuer = new Ably.Rest({ ...options({ key: REVOCABLE_KEY }), useTokenAuth: true });
  const { token } = await issuer.auth.requestToken({ clientId: 'mallory' });
  const client = new Ably.Realtime({ ...options(), key: undefined, token });
  t.after(() => closed(client));
  await client.connection.whenState('connected');
  const lost = new Promise((resolve) => client.connection.once(['disconnected', 'failed'], resolve));
  // The call needs the key itself, which the SDK sends over TLS only.
  await assert.rejects(issuer.auth.revokeTokens([{ type: 'clientId', value: 'mallory' }]), { code: 40162 });
  const headers = { authorization: `Basic ${Buffer.from(REVOCABLE_KEY).toString('base64')}`, 'content-type': 'application/json' };
  const url = `http://127.0.0.1:${options().port}/keys/${REVOCABLE_KEY.split(':')[0]}/revokeTokens`;
  const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify({ targets: ['clientId:mallory'] }) });
  assert.equal((await answer.json()).successCount, 1);
  assert.equal((await lost).reason.code, 40141);
});

test('auth: a token request of one client is a token of another', async () => {
  const issuer = rest();
  const request = await issuer.auth.createTokenRequest({ clientId: 'alice', ttl: 60_000 }, { key: process.env.KEY });
  const client = new Ably.Rest({ ...options(), key: undefined, authCallback: (_, done) => done(null, request) });
  assert.equal((await client.auth.authorize()).clientId, 'alice');
});

test('presence: a leave has extras of its own, and the last data', async (t) => {
  const name = unique('plain');
  const ear = connect(t, 'eve', {}, 1).channels.get(name);
  const reported = [];
  await ear.presence.subscribe(({ action, data, extras }) => reported.push([action, data, extras]));
  const { presence } = connect(t, 'alice').channels.get(name);
  await presence.enter(Ably.Realtime.PresenceMessage.fromValues({ data: 'here', extras: { headers: { at: 'home' } } }));
  await presence.leave(Ably.Realtime.PresenceMessage.fromValues({ extras: { headers: { at: 'work' } } }));
  await until('both', (check) => (ear.presence.subscribe(check), () => ear.presence.unsubscribe(check)), () => reported.length === 2, { describe: () => reported });
  assert.deepEqual(reported, [['enter', 'here', { headers: { at: 'home' } }], ['leave', 'here', { headers: { at: 'work' } }]]);
});

test('annotations: summaries reach subscribers of the name of their message', async (t) => {
  const name = unique('plain');
  const channel = connect(t, 'alice').channels.get(name);
  const got = [];
  await channel.subscribe('mine', (message) => got.push(message));
  const { serials } = await channel.publish('mine', 'x');
  await channel.annotations.publish(serials[0], { type: 'likes:flag.v1' });
  await until('the summary', (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => got.length === 2, { describe: () => got });
  assert.deepEqual([got[1].action, got[1].name, got[1].annotations.summary['likes:flag.v1'].total], ['message.summary', 'mine', 1]);
});

test('REST: the status of a channel that no one uses, a token of all rights, a HEAD', async () => {
  const client = rest();
  assert.equal((await client.channels.get(unique('plain')).status()).status.isActive, true);
  const { LIMITED_KEY } = process.env;
  const limited = new Ably.Rest({ ...options({ key: LIMITED_KEY }), useTokenAuth: true });
  const { capability } = await limited.auth.requestToken();
  assert.equal(capability, '{"two":["publish","subscribe"],"all":["*"],"ns:*":["publish"]}');
  const origin = `http://127.0.0.1:${options().port}`;
  const head = await fetch(`${origin}/time`, { method: 'HEAD' });
  assert.deepEqual([head.status, await head.text(), head.headers.get('keep-alive')], [200, '', 'timeout=115']);
});

test('crypto: a channel with generated keys', async (t) => {
  const key = await Ably.Realtime.Crypto.generateRandomKey();
  const cipher = Ably.Realtime.Crypto.getDefaultParams({ key });
  const name = unique('plain');
  const plain = await eavesdrop(t, name);
  const channel = connect(t, 'alice', {}, 1).channels.get(name, { cipher });
  const got = [];
  await channel.subscribe(({ data }) => got.push(data));
  await channel.publish('n', { secret: 1 });
  await until('it', (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => got.length, { describe: () => got });
  assert.deepEqual(got, [{ secret: 1 }]);
  await plain.hears('it', (heard) => heard.length === 1);
  assert.match(plain.heard[0].encoding, /cipher\+aes-256-cbc/);
});

test('not supported: every method of push — there is no push service behind the gateway', async () => {
  const { push } = rest({ plugins: { Push } });
  const device = { id: 'd', deviceSecret: 's', platform: 'browser', formFactor: 'desktop', push: { recipient: { transportType: 'web' } } };
  const calls = {
    publish: () => push.admin.publish({ clientId: 'x' }, { notification: { title: 't' } }),
    saveDevice: () => push.admin.deviceRegistrations.save(device),
    getDevice: () => push.admin.deviceRegistrations.get('d'),
    listDevices: () => push.admin.deviceRegistrations.list({}),
    removeDevice: () => push.admin.deviceRegistrations.remove('d'),
    removeDevices: () => push.admin.deviceRegistrations.removeWhere({ clientId: 'x' }),
    subscribe: () => push.admin.channelSubscriptions.save({ channel: 'c', clientId: 'x' }),
    listSubscriptions: () => push.admin.channelSubscriptions.list({ channel: 'c' }),
    listChannels: () => push.admin.channelSubscriptions.listChannels({}),
    unsubscribe: () => push.admin.channelSubscriptions.remove({ channel: 'c', clientId: 'x' }),
    unsubscribeAll: () => push.admin.channelSubscriptions.removeWhere({ channel: 'c' }),
  };
  for (const [name, call] of Object.entries(calls)) {
    await assert.rejects(call, (error) => (assert.deepEqual([error.code, error.statusCode], [40400, 404], `${name}: ${error}`), true));
  }
});
