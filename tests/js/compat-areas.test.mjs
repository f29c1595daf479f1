// What the SDK's documentation promises, area by area, in the details that applications rely on: one test per rule.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as Ably from 'ably';
import { closed, connect, eavesdrop, KEY, options, PORTS, rest, unique, until } from './support.mjs';

const { LIMITED_KEY } = process.env;
const ORIGIN = `http://127.0.0.1:${PORTS[0]}`;
const BASIC = { authorization: `Basic ${Buffer.from(KEY).toString('base64')}`, 'content-type': 'application/json' };

function refused(work, code, statusCode) {
  return assert.rejects(work, (error) => {
    assert.equal(error.code, code, String(error));
    if (statusCode) assert.equal(error.statusCode, statusCode);
    return true;
  });
}

function heardOf(channel, got, count) {
  return until(`${count} messages`, (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => got.length >= count, {
    describe: () => got,
  });
}

/** A connected client with a token of these rights and this identity. */
async function holder(t, params = {}, extra = {}) {
  const { token } = await rest().auth.requestToken({ ...params, capability: params.capability && JSON.stringify(params.capability) });
  const client = new Ably.Realtime({ ...options(), key: undefined, token, ...extra });
  t.after(() => closed(client));
  await client.connection.whenState('connected');
  return client;
}

async function tokenFor(capability, clientId) {
  return (await rest().auth.requestToken({ clientId, capability: JSON.stringify(capability) })).token;
}

function drop(client) {
  const lost = new Promise((resolve) => client.connection.once('disconnected', resolve));
  client.connection.connectionManager.disconnectAllTransports();
  return lost;
}

test('messages: names and data that are absent, null or empty', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const channel = connect(t, 'alice').channels.get(name);
  const kinds = [
    [{ name: 'n' }, 'n', undefined],
    [{ name: 'n', data: null }, 'n', undefined],
    [{ name: 'n', data: '' }, 'n', ''],
    [{ name: '', data: 'd' }, '', 'd'],
    [{ name: null, data: 'd' }, undefined, 'd'],
    [{ data: 'd' }, undefined, 'd'],
    [{}, undefined, undefined],
  ];
  for (const [message] of kinds) await channel.publish(message);
  await ear.hears('all', (heard) => heard.length === kinds.length);
  assert.deepEqual(ear.heard.map(({ name, data }) => [name, data]), kinds.map(([, ...shown]) => shown));
});

test('messages: an encoding that no one here knows passes unchanged', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const channel = connect(t, 'alice').channels.get(name);
  const chains = ['utf-8', 'foo', 'utf-8/foo', 'json/cipher+rot13'];
  for (const encoding of chains) await channel.publish({ name: 'n', data: 'dGVzdA==', encoding });
  await ear.hears('all', (heard) => heard.length === chains.length);
  assert.deepEqual(ear.heard.map(({ data, encoding }) => [data, encoding]), chains.map((chain) => ['dGVzdA==', chain]));
});

test('messages: what is stored as JSON over HTTP is what is received, and the other way round', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name);
  const url = `${ORIGIN}/channels/${encodeURIComponent(name)}/messages`;
  const raw = [{ data: 'ünï', encoding: undefined }, { data: '{"a":[1,"£"]}', encoding: 'json' }, { data: 'AP8=', encoding: 'base64' }];
  for (const message of raw) {
    assert.equal((await fetch(url, { method: 'POST', headers: BASIC, body: JSON.stringify(message) })).status, 201);
  }
  await ear.hears('three', (heard) => heard.length === 3);
  const values = ['ünï', { a: [1, '£'] }, Buffer.from([0, 255])];
  assert.deepEqual(ear.heard.map(({ data }) => (typeof data === 'string' || !ArrayBuffer.isView(data) ? data : Buffer.from(data))), values);
  for (const value of values) await ear.channel.publish('n', value);
  const stored = await (await fetch(`${url}?limit=3&direction=backwards`, { headers: BASIC })).json();
  assert.deepEqual(stored.reverse().map(({ data, encoding }) => ({ data, encoding })), raw);
  for (const data of [{ a: 1 }, 5, true, [1]]) {
    const answer = await fetch(url, { method: 'POST', headers: BASIC, body: JSON.stringify({ data }) });
    assert.deepEqual([answer.status, (await answer.json()).error.code], [400, 40013]);
  }
});

test('messages: one that is refused does not harm those around it', async (t) => {
  const channel = connect(t, 'alice').channels.get(unique('plain'));
  const sent = [channel.publish('a', '1'), channel.publish({ name: 'b' }, { _forceNack: true }), channel.publish('c', '3')];
  const outcomes = await Promise.allSettled(sent);
  assert.deepEqual(outcomes.map(({ reason }) => reason?.code), [undefined, 40099, undefined]);
  assert.deepEqual((await channel.history()).items.map(({ name }) => name), ['c', 'a']);
  await refused(rest().channels.get(channel.name).publish({ name: 'b' }, { _forceNack: true }), 40099, 400);
});

test('messages: a thousand in one publish, and no more', async (t) => {
  const channel = connect(t, 'alice').channels.get(unique('plain'));
  const many = Array.from({ length: 1000 }, (_, index) => ({ name: `n${index}` }));
  const { serials } = await channel.publish(many);
  assert.deepEqual([serials.length, serials.toSorted()], [1000, serials]);
  await refused(channel.publish([...many, { name: 'x' }]), 40034, 400);
});

test('messages: ids of one publish are numbered, all of them or none', async () => {
  const channel = rest().channels.get(unique('plain'));
  const good = [{ id: 'x:0' }, { id: 'x:1' }];
  assert.deepEqual(await channel.publish(good), await channel.publish(good));
  for (const ids of [['x:0', undefined], ['x:1', 'x:0'], ['q:0', 'r:1']]) await refused(channel.publish(ids.map((id) => ({ id }))), 40031, 400);
  await refused(channel.publish([]), 40030, 400);
});

test('messages: whose client id they may carry', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name);
  const own = await holder(t, { clientId: 'own' });
  await own.channels.get(name).publish('n');
  await own.channels.get(name).publish({ name: 'n', clientId: 'own' });
  await refused(own.channels.get(name).publish({ name: 'n', clientId: 'other' }), 40012);
  const any = await holder(t, { clientId: '*' });
  await any.channels.get(name).publish({ name: 'n', clientId: 'other' });
  await any.channels.get(name).publish('n');
  const unnamed = await holder(t);
  await refused(unnamed.channels.get(name).publish({ name: 'n', clientId: 'other' }), 40012);
  await refused(rest({ clientId: 'me' }).channels.get(name).publish({ name: 'n', clientId: 'other' }), 40012);
  await rest({ clientId: 'me' }).channels.get(name).publish('n');
  await ear.hears('five', (heard) => heard.length === 5);
  assert.deepEqual(ear.heard.map(({ clientId }) => clientId), ['own', 'own', 'other', undefined, 'me']);
  const other = await rest().auth.requestToken({ clientId: 'own' });
  const wrong = new Ably.Realtime({ ...options(), key: undefined, token: other.token, clientId: 'wrong' });
  await wrong.connection.whenState('failed');
  assert.equal(wrong.connection.errorReason.code, 40102);
});

test('messages: REST publishes for a connection', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name);
  const quiet = connect(t, 'alice', { echoMessages: false });
  const got = [];
  await quiet.channels.get(name).subscribe(({ data }) => got.push(data));
  await rest().channels.get(name).publish({ data: 'mine', connectionKey: quiet.connection.key });
  await rest().channels.get(name).publish('n', 'not mine');
  await heardOf(quiet.channels.get(name), got, 1);
  assert.deepEqual(got, ['not mine']);
  assert.deepEqual(ear.heard.map(({ connectionId }) => connectionId), [quiet.connection.id, undefined]);
  await refused(rest().channels.get(name).publish({ data: 'x', connectionKey: 'bad' }), 40006, 400);
});

test('messages: subscriptions by filter', async (t) => {
  const channel = connect(t, 'alice').channels.get(unique('plain'));
  const got = [];
  await channel.subscribe({ refType: 'com.example', name: 'r' }, ({ data }) => got.push(data));
  const extras = { ref: { type: 'com.example', timeserial: '1' } };
  await channel.publish([{ name: 'r', data: 'no reference' }, { name: 'x', extras, data: 'other name' }, { name: 'r', extras, data: 'this' }]);
  await until('it', (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => got.length > 0);
  assert.deepEqual(got, ['this']);
});

test('channels: params and modes are granted as far as they are known', async (t) => {
  const client = connect(t, 'alice');
  const all = ['presence', 'publish', 'subscribe', 'presence_subscribe', 'annotation_publish'];
  const asked = [
    [{}, {}, all],
    [{ params: { nonexistent: 'foo' } }, {}, all],
    [{ params: { modes: 'subscribe', delta: 'vcdiff' } }, { modes: 'subscribe', delta: 'vcdiff' }, ['subscribe']],
    [{ params: { modes: 'presence,subscribe' }, modes: ['PUBLISH'] }, { modes: 'presence,subscribe' }, ['presence', 'subscribe']],
    [{ modes: ['PUBLISH', 'PRESENCE_SUBSCRIBE'] }, {}, ['publish', 'presence_subscribe']],
    [{ params: { modes: 'nope' } }, {}, all],
  ];
  for (const [wanted, params, modes] of asked) {
    const channel = client.channels.get(unique('plain'), wanted);
    await channel.attach();
    assert.deepEqual([channel.params, channel.modes], [params, modes]);
  }
  await refused(client.channels.get(unique('plain'), { params: { rewind: 'bad' } }).attach(), 40003, 400);
});

test('channels: a backlog is announced; a new attach is rewound again, a change of params is not', async (t) => {
  const name = unique('plain');
  const writer = connect(t, 'alice').channels.get(name);
  await writer.publish('n', 'first');
  const client = connect(t, 'bob', {}, 1);
  const channel = client.channels.get(name, { params: { rewind: '1' } });
  const got = [];
  const change = await channel.subscribe(({ data }) => got.push(data));
  assert.deepEqual([change.hasBacklog, change.resumed], [true, false]);
  await heardOf(channel, got, 1);
  await channel.detach();
  await channel.attach();
  await heardOf(channel, got, 2);
  assert.equal((await client.channels.get(unique('plain'), { params: { rewind: '1' } }).attach()).hasBacklog, false);
  await channel.setOptions({ params: { rewind: '2' } });
  await writer.publish('n', 'second');
  await heardOf(channel, got, 3);
  assert.deepEqual(got, ['first', 'first', 'second']);
});

test('channels: plain and qualified at once, and options changed while messages arrive', async (t) => {
  const name = unique('plain');
  const client = connect(t, 'alice');
  await client.channels.get(name).publish('n', 'before');
  const [plain, qualified] = [name, `[?rewind=1]${name}`].map((full) => ({ channel: client.channels.get(full), got: [] }));
  for (const { channel, got } of [plain, qualified]) await channel.subscribe(({ data }) => got.push(data));
  const writer = connect(t, 'bob', {}, 1).channels.get(name);
  for (let index = 0; index < 30; index += 1) {
    const sent = writer.publish('n', String(index));
    if (index % 10 === 5) await plain.channel.setOptions({ params: { echo: String(index % 20 === 5) } });
    await sent;
  }
  await heardOf(plain.channel, plain.got, 30);
  await heardOf(qualified.channel, qualified.got, 31);
  const numbers = Array.from({ length: 30 }, (_, index) => String(index));
  assert.deepEqual(plain.got, numbers);
  assert.deepEqual(qualified.got, ['before', ...numbers]);
});

test('channels: attach and detach in quick succession, and a hundred channels resumed together', async (t) => {
  const client = connect(t, 'alice');
  const channel = client.channels.get(unique('plain'));
  const calls = Array.from({ length: 20 }, (_, index) => (index % 2 ? channel.detach() : channel.attach()).catch(({ code }) => code));
  for (const outcome of await Promise.all(calls)) assert.ok([undefined, null, 90000].includes(outcome?.current ? undefined : outcome));
  await channel.attach();
  const many = Array.from({ length: 100 }, () => client.channels.get(unique('plain')));
  await Promise.all(many.map((one) => one.attach()));
  await drop(client);
  const resumed = await Promise.all(many.map((one) => one.whenState('attaching').then(() => one.whenState('attached'))));
  assert.ok(resumed.every((change) => change === null || change.resumed));
  await Promise.all(many.map((one) => one.publish('n', 'x')));
});

test('tokens: rights are those of the request as far as the key has them', async () => {
  const granted = async (capability) => {
    const params = capability && { capability: JSON.stringify(capability) };
    return (await rest().auth.requestToken(params, { key: LIMITED_KEY })).capability;
  };
  assert.equal((await rest().auth.requestToken()).capability, '{"*":["*"]}');
  assert.equal(await granted({ two: ['presence', 'publish', 'subscribe'], unknown: ['publish'] }), '{"two":["publish","subscribe"]}');
  assert.equal(await granted({ two: ['*'] }), '{"two":["publish","subscribe"]}');
  assert.equal(await granted({ all: ['subscribe', 'publish'] }), '{"all":["publish","subscribe"]}');
  assert.equal(await granted({ 'ns:check': ['publish'], ns: ['publish'] }), '{"ns":["publish"],"ns:check":["publish"]}');
  await refused(granted({ unknown: ['publish'] }), 40160, 401);
  await refused(granted({ 'ns:check': ['subscribe'] }), 40160, 401);
});

test('tokens: bad requests', async () => {
  const { auth } = rest();
  await refused(auth.requestToken({ timestamp: Date.now() - 30 * 60_000 }), 40104, 401);
  for (const ttl of [-1, 366 * 86_400_000]) await refused(auth.requestToken({ ttl }), 40003, 400);
  for (const operations of [['publish_'], ['*', 'publish'], []]) {
    await refused(auth.requestToken({ capability: JSON.stringify({ channel: operations }) }), 40000, 400);
  }
  await refused(auth.requestToken({}, { key: `${KEY.split(':')[0]}:wrong` }), 40101, 401);
  const request = JSON.stringify(await auth.createTokenRequest());
  const post = () => fetch(`${ORIGIN}/keys/${KEY.split(':')[0]}/requestToken`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: request });
  assert.equal((await post()).status, 201);
  assert.equal((await (await post()).json()).error.code, 40105);
  const { issued, expires } = await auth.requestToken({ ttl: 100_000 });
  assert.equal(expires - issued, 100_000);
});

test('tokens: rights and identity of an open connection', async (t) => {
  const name = unique('plain');
  const client = await holder(t, { clientId: 'me', capability: { elsewhere: ['*'] } });
  const channel = client.channels.get(name);
  await refused(channel.attach(), 40160, 401);
  await client.auth.authorize(null, { token: await tokenFor({ elsewhere: ['*'], [name]: ['*'] }, 'me') });
  await channel.attach();
  await client.auth.authorize(null, { token: await tokenFor({ [name]: ['subscribe'] }, 'me') });
  await refused(channel.publish('n', 'x'), 40160, 401);
  const failing = channel.whenState('failed');
  await client.auth.authorize(null, { token: await tokenFor({ elsewhere: ['*'] }, 'me') });
  await failing;
  assert.deepEqual([channel.errorReason.code, client.connection.state], [40160, 'connected']);
  await refused(client.auth.authorize(null, { token: await tokenFor({ '*': ['*'] }, 'another') }), 40102, 401);
  assert.equal(client.connection.state, 'failed');
  const three = await holder(t, {}, { authCallback: (params, done) => rest().auth.requestToken(params).then((token) => done(null, token), done) });
  assert.equal((await Promise.all([1, 2, 3].map(() => three.auth.authorize()))).length, 3);
});

test('recovery: a key that is not one of the service, then one with a wrong secret', async (t) => {
  const client = connect(t, 'alice');
  const channel = client.channels.get(unique('plain'));
  await channel.publish('n', 'x');
  await channel.attach();
  const { id } = client.connection;
  client.connection.connectionManager.connectionKey = '_____!ably_test_fake-key____';
  await drop(client);
  await client.connection.whenState('connected');
  assert.notEqual(client.connection.id, id);
  assert.deepEqual([client.connection.errorReason.code, client.connection.connectionManager.msgSerial], [80018, 0]);
  await channel.whenState('attached');
  await channel.publish('n', 'y');
  client.auth.key = `${KEY.split(':')[0]}:wrong`;
  await drop(client);
  const change = await client.connection.whenState('failed');
  assert.deepEqual([change.reason.code, change.reason.statusCode, channel.state], [40101, 401, 'failed']);
});

test('recovery: publishes through five drops arrive once and in order', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const client = connect(t, 'alice');
  const channel = client.channels.get(name);
  await channel.attach();
  const sent = [];
  for (let round = 0; round < 5; round += 1) {
    for (let index = 0; index < 10; index += 1) sent.push(channel.publish('n', String(round * 10 + index)));
    await drop(client);
    await client.connection.whenState('connected');
  }
  await Promise.all(sent);
  await ear.hears('all', (heard) => heard.length === 50);
  assert.deepEqual(ear.heard.map(({ data }) => data), Array.from({ length: 50 }, (_, index) => String(index)));
});

test('presence: updates in order, extras, encrypted data', async (t) => {
  const name = unique('plain');
  const clients = ['alice', 'bob'].map((id, gateway) => connect(t, id, {}, gateway));
  const [mine, theirs] = clients.map((client) => client.channels.get(name).presence);
  const got = [];
  await theirs.subscribe((member) => got.push(member));
  await mine.enter(Ably.Realtime.PresenceMessage.fromValues({ data: { a: 1 }, extras: { headers: { key: 'v' } } }));
  const updates = Array.from({ length: 60 }, (_, index) => `u${index}`);
  await Promise.all(updates.map((data) => mine.update(data)));
  await until('all', (check) => (theirs.subscribe(check), () => theirs.unsubscribe(check)), () => got.length === 61);
  assert.deepEqual([got[0].data, got[0].extras], [{ a: 1 }, { headers: { key: 'v' } }]);
  assert.deepEqual(got.slice(1).map(({ data }) => data), updates);
  const cipher = { key: await Ably.Realtime.Crypto.generateRandomKey() };
  const [secret, reader] = clients.map((client) => client.channels.get(`${name}-secret`, { cipher }));
  await secret.presence.enter({ b: 2 });
  assert.deepEqual((await reader.presence.get())[0].data, { b: 2 });
  assert.match((await rest().channels.get(secret.name).presence.get()).items[0].encoding, /cipher/);
});

test('presence: history in pages, and up to the attach', async (t) => {
  const name = unique('plain');
  const { presence } = connect(t, 'alice').channels.get(name);
  await presence.enter('one');
  await presence.update('two');
  const late = connect(t, 'bob', {}, 1).channels.get(name);
  await late.attach();
  await presence.leave('three');
  const before = await late.presence.history({ untilAttach: true });
  assert.deepEqual(before.items.map(({ action, data }) => [action, data]), [['update', 'two'], ['enter', 'one']]);
  const first = await late.presence.history({ limit: 2, direction: 'forwards' });
  const second = await first.next();
  assert.deepEqual([...first.items, ...second.items].map(({ action }) => action), ['enter', 'update', 'leave']);
  assert.ok(!second.hasNext());
});

test('REST: pages, times and limits of history', async () => {
  const channel = rest().channels.get(unique('plain'));
  for (let index = 0; index < 5; index += 1) await channel.publish(`e${index}`, '');
  await channel.publish([{ name: 'x' }, { name: 'y' }, { name: 'z' }]);
  for (const [direction, order] of [['forwards', 'e0 e1 e2 e3 e4 x y z'], ['backwards', 'z y x e4 e3 e2 e1 e0']]) {
    let page = await channel.history({ direction, limit: 3 });
    const first = page.items.map(({ name }) => name);
    const names = [...first];
    while (page.hasNext()) {
      page = await page.next();
      names.push(...page.items.map(({ name }) => name));
    }
    assert.equal(names.join(' '), order);
    assert.deepEqual([page.isLast(), await page.next()], [true, null]);
    assert.deepEqual((await page.first()).items.map(({ name }) => name), first);
    assert.equal((await page.current()).items.length, 2);
  }
  const { items } = await channel.history({ direction: 'forwards' });
  const between = await channel.history({ start: items[1].timestamp, end: items[2].timestamp, direction: 'forwards' });
  assert.deepEqual(between.items.map(({ name }) => name).slice(0, 2), ['e1', 'e2']);
  for (const query of [{ limit: 'abc' }, { limit: '-1' }, { direction: 'sideways' }, { start: 'soon' }]) {
    const answer = await rest().request('get', `/channels/${channel.name}/messages`, 3, query);
    assert.deepEqual([answer.statusCode, answer.errorCode, answer.success], [400, 40003, false]);
  }
});

test('REST: batches as protocol version 2 has them', async () => {
  const [one, two] = [unique('plain'), unique('plain')];
  const batch = (...channels) => rest().request('post', '/messages', 2, null, { channels, messages: { data: 'x' } }, null);
  const done = await batch(one, two);
  assert.deepEqual([done.statusCode, done.items.map(({ channel }) => channel)], [201, [one, two]]);
  const partly = await batch(one, '[bad', '');
  assert.deepEqual([partly.statusCode, partly.success, partly.errorCode], [400, false, 40020]);
  assert.deepEqual(partly.items[0].batchResponse.map(({ error }) => error?.code), [undefined, 40010, 40010]);
});

test('mutable: versions in pages, and what cannot be changed', async (t) => {
  const realtime = connect(t, 'alice').channels.get(unique('plain'));
  const channel = rest({ clientId: 'editor' }).channels.get(realtime.name);
  const { serials } = await realtime.publish('n', 'one');
  const [serial] = serials;
  await channel.updateMessage({ serial, data: { j: 1 } }, { description: 'why', metadata: { a: 'b' } });
  await refused(realtime.appendMessage({ serial, data: 'text' }), 40013, 400);
  await channel.deleteMessage({ serial });
  const page = await channel.getMessageVersions(serial, { limit: 2, direction: 'backwards' });
  const rest2 = await page.next();
  assert.deepEqual([...page.items, ...rest2.items].map(({ action }) => action), ['message.delete', 'message.update', 'message.create']);
  assert.deepEqual([page.items[1].version.clientId, page.items[1].version.description], ['editor', 'why']);
  for (const unknown of ['nope', '01700000000000-000@abcdefghij:000']) {
    await refused(channel.getMessage(unknown), 40400, 404);
    await refused(channel.updateMessage({ serial: unknown, data: 'x' }), 40400, 404);
    await refused(realtime.appendMessage({ serial: unknown, data: 'x' }), 40400, 404);
  }
});

test('annotations: every way to count them, and their list in pages', async (t) => {
  const channel = connect(t, 'alice').channels.get(unique('plain'));
  const over = rest({ clientId: 'bob' }).channels.get(channel.name).annotations;
  const { serials } = await channel.publish('n', 'x');
  const [serial] = serials;
  await over.publish(serial, { type: 'r:multiple.v1', name: 'up', count: 3 });
  await over.publish(serial, { type: 'r:total.v1' });
  await channel.annotations.publish(serial, { type: 'r:unique.v1', name: 'a' });
  await channel.annotations.publish(serial, { type: 'r:unique.v1', name: 'b' });
  await channel.annotations.publish(serial, { type: 'r:flag.v1' });
  const { summary } = (await channel.getMessage(serial)).annotations;
  assert.deepEqual(summary['r:multiple.v1'].up.clientIds, { bob: 3 });
  assert.deepEqual(summary['r:unique.v1'], { b: { total: 1, clientIds: ['alice'], clipped: false } });
  assert.deepEqual([summary['r:total.v1'].total, summary['r:flag.v1'].total], [1, 1]);
  const types = [];
  for (let page = await over.get(serial, { limit: 2 }); page; page = await page.next()) types.push(...page.items.map(({ type }) => type));
  assert.deepEqual(types, ['r:multiple.v1', 'r:total.v1', 'r:unique.v1', 'r:unique.v1', 'r:flag.v1']);
});
