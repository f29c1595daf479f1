// ably-js features that applications use and the other suites do not: one test per feature. What the service does not
// support is named `not supported: feature — reason`, and the test checks how it is refused.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { test } from 'node:test';
import vcdiff from '@ably/vcdiff-decoder';
import * as Ably from 'ably';
import { closed, connect, eavesdrop, KEY, options, PORTS, rest, unique, until } from './support.mjs';

const [KEY_NAME, KEY_SECRET] = KEY.split(':');

function jwt(claims = {}, lastingS = 3600) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const now = Date.now() / 1000;
  const body = `${encode({ alg: 'HS256', typ: 'JWT', kid: KEY_NAME })}.${encode({ iat: now, exp: now + lastingS, ...claims })}`;
  return `${body}.${createHmac('sha256', KEY_SECRET).update(body).digest('base64url')}`;
}

function withToken(t, extra, gateway = 0) {
  const client = new Ably.Realtime({ ...options({}, gateway), key: undefined, ...extra });
  t.after(() => closed(client));
  return client;
}

function stateOf(client, state) {
  return until(`connection ${state}`, (check) => (client.connection.on(check), () => client.connection.off(check)), () =>
    client.connection.state === state,
  );
}

function refused(work, code) {
  return assert.rejects(work, (error) => {
    assert.equal(error.code, code, String(error));
    assert.ok(error.statusCode);
    return true;
  });
}

/** Lose the socket without a word. */
function cut(client) {
  const lost = new Promise((resolve) => client.connection.once('disconnected', resolve));
  client.connection.connectionManager.activeProtocol.transport.wsConnection.terminate();
  return lost;
}

test('channel: rewind by count, by the qualifier in the name, and by time', async (t) => {
  const name = unique('plain');
  const writer = connect(t, 'alice').channels.get(name);
  for (let index = 0; index < 4; index += 1) await writer.publish('n', String(index));
  const read = async (channel, count) => {
    const data = [];
    await channel.subscribe((message) => data.push(message.data));
    await writer.publish('n', 'end');
    await until('all', (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => data.length === count);
    return data;
  };
  const reader = connect(t, 'bob', {}, 1);
  assert.deepEqual(await read(reader.channels.get(name, { params: { rewind: '2' } }), 3), ['2', '3', 'end']);
  assert.deepEqual(await read(reader.channels.get(`[?rewind=1]${name}`), 2), ['end', 'end']);
  const everything = ['0', '1', '2', '3', 'end', 'end', 'end'];
  assert.deepEqual(await read(connect(t, 'carol').channels.get(name, { params: { rewind: '1m' } }), 7), everything);
});

test('channel: modes and params can be changed while attached', async (t) => {
  const channel = connect(t, 'alice').channels.get(unique('plain'), { modes: ['SUBSCRIBE'] });
  await channel.attach();
  assert.deepEqual(channel.modes, ['subscribe']);
  await refused(channel.publish('n', 'x'), 40165);
  await channel.setOptions({ modes: ['SUBSCRIBE', 'PUBLISH'] });
  assert.deepEqual([...channel.modes].sort(), ['publish', 'subscribe']);
  await channel.publish('n', 'x');
});

test('channel: encrypted messages, also appended to history', async (t) => {
  const name = unique('plain');
  const cipher = { key: await Ably.Realtime.Crypto.generateRandomKey() };
  const writer = connect(t, 'alice').channels.get(name, { cipher });
  const reader = connect(t, 'bob', {}, 1).channels.get(name, { cipher });
  const got = [];
  await reader.subscribe((message) => got.push(message.data));
  for (const data of ['text', { a: 1 }, Buffer.from([1, 2])]) await writer.publish('n', data);
  await until('all', (check) => (reader.subscribe(check), () => reader.unsubscribe(check)), () => got.length === 3);
  assert.deepEqual([got[0], got[1], Buffer.from(got[2])], ['text', { a: 1 }, Buffer.from([1, 2])]);
  assert.equal((await reader.history()).items[2].data, 'text');
  const blind = await connect(t, 'eve').channels.get(name).history();
  assert.ok(blind.items[2].encoding.includes('cipher+aes-256-cbc'));
});

test('publish: extras with undefined inside', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  await connect(t, 'alice').channels.get(name).publish({ name: 'n', extras: { headers: { a: '1', b: undefined } } });
  await ear.hears('it', (heard) => heard.length === 1);
  assert.deepEqual(ear.heard[0].extras, { headers: { a: '1' } });
});

test('publish: a hundred at once keep their order', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const channel = connect(t, 'alice').channels.get(name);
  const results = await Promise.all(Array.from({ length: 100 }, (_, index) => channel.publish('n', String(index))));
  await ear.hears('all', (heard) => heard.length === 100);
  assert.deepEqual(ear.heard.map(({ data }) => data), Array.from({ length: 100 }, (_, index) => String(index)));
  assert.deepEqual(ear.heard.map(({ serial }) => serial), results.flatMap(({ serials }) => serials));
});

test('publish: ephemeral messages are delivered and not kept', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name);
  const channel = connect(t, 'alice').channels.get(name);
  await channel.publish({ name: 'passing', extras: { ephemeral: true } });
  await channel.publish('staying', 'x');
  await ear.hears('both', (heard) => heard.length === 2);
  assert.deepEqual((await channel.history()).items.map((message) => message.name), ['staying']);
});

test('mutable: operation metadata, the chain of versions, revival after a delete', async (t) => {
  const channel = connect(t, 'alice').channels.get(unique('plain'));
  const { serials } = await channel.publish('n', 'one');
  const serial = serials[0];
  await channel.updateMessage({ serial, data: 'two' }, { description: 'why', metadata: { k: 'v' } });
  await channel.deleteMessage({ serial });
  await channel.updateMessage({ serial, data: 'three' });
  const { items } = await channel.getMessageVersions(serial);
  assert.deepEqual(
    items.map(({ action, data }) => [action, data]),
    [['message.create', 'one'], ['message.update', 'two'], ['message.delete', 'two'], ['message.update', 'three']],
  );
  assert.deepEqual([items[1].version.description, items[1].version.metadata.k, items[1].version.clientId], ['why', 'v', 'alice']);
  assert.equal((await channel.getMessage(serial)).data, 'three');
});

test('mutable: over REST', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const channel = rest().channels.get(name);
  const { serials } = await channel.publish('n', 'one');
  const serial = serials[0];
  await channel.appendMessage({ serial, data: '+' });
  await channel.updateMessage({ serial, data: 'two' });
  await channel.deleteMessage({ serial });
  await ear.hears('all', (heard) => heard.length === 4);
  assert.deepEqual(
    ear.heard.map(({ action, data }) => [action, data]),
    [['message.create', 'one'], ['message.append', '+'], ['message.update', 'two'], ['message.delete', 'two']],
  );
});

test('REST: batch publish and batch presence, with a failing channel in it', async (t) => {
  const [one, two] = [unique('plain'), unique('plain')];
  const client = rest();
  const many = await client.batchPublish([{ channels: [one, two, ':bad'], messages: [{ name: 'n', data: 'x' }] }]);
  assert.deepEqual([many[0].successCount, many[0].failureCount], [2, 1]);
  assert.equal(many[0].results.find(({ channel }) => channel === ':bad').error.code, 40010);
  await connect(t, 'alice').channels.get(one).presence.enter('here');
  const members = await client.batchPresence([one, two]);
  assert.deepEqual(members.results.map(({ presence }) => presence.length), [1, 0]);
});

test('REST: channel status', async (t) => {
  const name = unique('plain');
  await connect(t, 'alice').channels.get(name).attach();
  const { channelId, status } = await rest().channels.get(name).status();
  assert.deepEqual([channelId, status.isActive, status.occupancy.metrics.subscribers], [name, true, 1]);
});

test('REST: raw requests, and errors with their codes', async () => {
  const client = rest();
  const time = await client.request('get', '/time', 3);
  assert.deepEqual([time.success, time.statusCode, time.items.length], [true, 200, 1]);
  const missing = await client.request('get', '/no/such', 3);
  assert.deepEqual([missing.success, missing.statusCode, missing.errorCode], [false, 404, 40400]);
});

test('auth: JWT with identity and rights, renewed when it expires, without losing a message', async (t) => {
  const name = unique('plain');
  let calls = 0;
  const authCallback = (_, done) => {
    calls += 1;
    done(null, jwt({ 'x-ably-clientId': 'alice', 'x-ably-capability': '{"plain:*":["subscribe","publish"]}' }, calls === 1 ? 2 : 60));
  };
  const client = withToken(t, { authCallback });
  const got = [];
  await client.channels.get(name).subscribe((message) => got.push(message.data));
  assert.equal(client.auth.clientId, 'alice');
  const writer = connect(t, 'bob', {}, 1).channels.get(name);
  const listen = (check) => (client.channels.get(name).subscribe(check), () => client.channels.get(name).unsubscribe(check));
  for (let index = 0; calls < 2 || index < 5; index += 1) {
    await writer.publish('n', String(index));
    await until('it', listen, () => got.includes(String(index)));
  }
  assert.deepEqual(got, [...got.keys()].map(String));
  await refused(client.channels.get(name).history(), 40160);
});

test('AUT-11 auth: a REST request with an expired token ends, and the next one carries a new token', async () => {
  let calls = 0;
  const authCallback = (_, done) => done(null, jwt({}, (calls += 1) === 1 ? -1 : 60));
  const client = new Ably.Rest({ ...options(), key: undefined, authCallback });
  const channel = client.channels.get(unique('plain'));
  // ably-js sends the token it began with again and again.
  await refused(channel.publish('n', 'x'), 40101);
  assert.ok(calls <= 10, `asked for ${calls} tokens`);
  await channel.publish('n', 'x');
});

test('auth: authUrl', async (t) => {
  const server = createServer((request, answer) => {
    const { searchParams } = new URL(request.url, 'http://localhost');
    answer.setHeader('content-type', 'application/jwt');
    answer.end(jwt({ 'x-ably-clientId': searchParams.get('who') }));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const client = withToken(t, { authUrl: `http://127.0.0.1:${server.address().port}/`, authParams: { who: 'dora' } });
  await stateOf(client, 'connected');
  assert.equal(client.auth.clientId, 'dora');
});

test('auth: authorize() changes the rights of an open connection', async (t) => {
  const rights = ['{"plain:*":["*"]}', '{"plain:*":["subscribe"]}'];
  const authCallback = (_, done) => done(null, jwt({ 'x-ably-capability': rights[0] }));
  const client = withToken(t, { authCallback });
  const channel = client.channels.get(unique('plain'));
  await channel.attach();
  await channel.publish('n', 'x');
  const { id } = client.connection;
  rights.shift();
  await client.auth.authorize();
  assert.deepEqual([client.connection.id, client.connection.state], [id, 'connected']);
  await assert.rejects(channel.publish('n', 'x'), (error) => [40160, 40165].includes(error.code));
});

test('recovery: a new client goes on with a recovery key', async (t) => {
  const name = unique('plain');
  const first = connect(t, 'alice');
  const before = first.channels.get(name);
  await before.attach();
  await before.publish('n', '0');
  const key = first.connection.createRecoveryKey();
  const { id } = first.connection;
  await cut(first);
  first.connection.connectionManager.disconnectAllTransports();
  await connect(t, 'bob', {}, 1).channels.get(name).publish('n', '1');
  const second = connect(t, 'alice', { recover: key }, 1);
  const got = [];
  await second.channels.get(name).subscribe((message) => got.push(message.data));
  assert.equal(second.connection.id, id);
  const { channels } = second;
  await until('the missed one', (check) => (channels.get(name).subscribe(check), () => channels.get(name).unsubscribe(check)), () =>
    got.includes('1'),
  );
});

test('recovery: publishes on their way arrive once', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const client = connect(t, 'alice');
  const channel = client.channels.get(name);
  await channel.publish('n', '0');
  const sending = Array.from({ length: 20 }, (_, index) => channel.publish('n', String(index + 1)));
  await cut(client);
  await Promise.all(sending);
  await channel.publish('n', '21');
  await ear.hears('the last', (heard) => heard.at(-1).data === '21');
  const numbers = ear.heard.map(({ data }) => Number(data)).sort((a, b) => a - b);
  assert.deepEqual(numbers, [...numbers.keys()]);
  assert.equal(numbers.length, 22);
});

test('recovery: an untrue connection key is reported, and the client starts afresh', async (t) => {
  const client = connect(t, 'alice', { recover: JSON.stringify({ connectionKey: 'xx!yy', msgSerial: 3, channelSerials: {} }) });
  await stateOf(client, 'connected');
  assert.equal(client.connection.errorReason.code, 80018);
  await client.channels.get(unique('plain')).publish('n', 'x');
});

test('REC-11 a channel that cannot be continued says so, and gets a fresh start', async (t) => {
  const name = unique('plain');
  const channelSerials = { [name]: '01700000000000-000@aaaaaaaaaa' };
  const first = connect(t, 'alice');
  await stateOf(first, 'connected');
  const recover = JSON.stringify({ connectionKey: first.connection.key, msgSerial: 0, channelSerials });
  await cut(first);
  first.connection.connectionManager.disconnectAllTransports();
  const channel = connect(t, 'alice', { recover }).channels.get(name);
  const change = await channel.attach();
  assert.equal(change.resumed, false);
  assert.equal(change.reason.code, 90005);
  await channel.publish('n', 'x');
});

test('REC-5 a clock that is a day off, either way', async (t) => {
  const real = Date.now;
  t.after(() => {
    Date.now = real;
  });
  for (const days of [-1, 1]) {
    Date.now = () => real() + days * 86_400_000;
    const name = unique('plain');
    const client = connect(t, 'alice');
    const channel = client.channels.get(name);
    const got = [];
    await channel.subscribe((message) => got.push(message.data));
    await channel.publish('n', '0');
    await cut(client);
    await stateOf(client, 'connected');
    await channel.publish('n', '1');
    await until('both', (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => got.length === 2);
    assert.deepEqual(got, ['0', '1']);
    assert.deepEqual((await channel.history({ direction: 'forwards' })).items.map(({ data }) => data), got);
  }
});

test('annotations: published, summarised, taken back, listed', async (t) => {
  const name = unique('plain');
  const modes = ['SUBSCRIBE', 'PUBLISH', 'ANNOTATION_PUBLISH', 'ANNOTATION_SUBSCRIBE'];
  const [alice, bob] = ['alice', 'bob'].map((id, index) => connect(t, id, {}, index).channels.get(name, { modes }));
  const summaries = [];
  const raw = [];
  await alice.subscribe((message) => message.action === 'message.summary' && summaries.push(message));
  await alice.annotations.subscribe((annotation) => raw.push(annotation));
  await bob.attach();
  const { serials } = await alice.publish('n', 'annotate me');
  const type = 'reaction:distinct.v1';
  const two = until('two', (check) => (alice.annotations.subscribe(check), () => alice.annotations.unsubscribe(check)), () => raw.length === 2);
  await alice.annotations.publish(serials[0], { type, name: 'up' });
  await bob.annotations.publish(serials[0], { type, name: 'up', data: { why: 'good' } });
  await two;
  assert.deepEqual(raw.map((one) => [one.action, one.clientId, one.name, one.messageSerial]), [
    ['annotation.create', 'alice', 'up', serials[0]],
    ['annotation.create', 'bob', 'up', serials[0]],
  ]);
  assert.deepEqual(raw[1].data, { why: 'good' });
  const summary = { [type]: { up: { total: 2, clientIds: ['alice', 'bob'], clipped: false } } };
  assert.deepEqual(summaries.at(-1).annotations.summary, summary);
  assert.equal(summaries.at(-1).serial, serials[0]);
  const listed = await alice.annotations.get(serials[0], {});
  assert.deepEqual(listed.items.map(({ clientId, name: of }) => [clientId, of]), [['alice', 'up'], ['bob', 'up']]);
  const [inHistory] = (await alice.history()).items;
  assert.deepEqual(inHistory.annotations.summary, summary);
  const gone = until('one left', (check) => (alice.annotations.subscribe(check), () => alice.annotations.unsubscribe(check)), () => raw.length === 3);
  await rest({ clientId: 'bob' }).channels.get(name).annotations.delete(serials[0], { type, name: 'up' });
  await gone;
  assert.equal(raw[2].action, 'annotation.delete');
  assert.deepEqual((await alice.getMessage(serials[0])).annotations.summary[type].up.clientIds, ['alice']);
  await refused(alice.annotations.publish(serials[0], { type: 'no-method' }), 40000);
  await refused(alice.annotations.publish('01700000000000-000@abcdefghij:000', { type, name: 'up' }), 40400);
});

test('not supported: push notifications — there is no push service behind the gateway', async () => {
  await refused(rest().push.admin.publish({ clientId: 'x' }, { notification: { title: 't' } }), 40400);
});

test('not supported: statistics — the list is empty; /metrics has the counters', async () => {
  assert.deepEqual((await rest().stats()).items, []);
});

const VERSIONS = ['active', 'inactive', 'closed', 'closed again', 'ünïcode'].map((status, count) => ({ foo: 'bar', count, status }));

/** A channel that gets deltas, what it has received, and how often its decoder ran; `break_` spoils a decoding. */
function reader(t, name, break_ = () => {}, gateway = 1) {
  const got = [];
  const calls = [];
  const decode = (delta, base) => {
    calls.push(delta.length);
    break_(calls.length);
    return vcdiff.decode(delta, base);
  };
  const client = connect(t, 'bob', { plugins: { vcdiff: { decode } } }, gateway);
  const channel = client.channels.get(name, { params: { delta: 'vcdiff' } });
  return { client, channel, got, calls };
}

function received({ channel, got }, count) {
  return until(`${count} messages`, (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => got.length === count, {
    describe: () => got,
  });
}

test('deltas: messages come as what changed since the one before', async (t) => {
  const name = unique('plain');
  const writer = connect(t, 'alice').channels.get(name);
  const cipher = { key: await Ably.Realtime.Crypto.generateRandomKey() };
  const ears = [reader(t, name), reader(t, name, undefined, 0)];
  for (const { channel, got } of ears) await channel.subscribe((message) => got.push(message));
  assert.deepEqual(ears[0].channel.params, { delta: 'vcdiff' });
  for (const data of VERSIONS) await writer.publish('n', data);
  await writer.publish([{ data: 'x'.repeat(1000) }, { data: `${'x'.repeat(500)}y${'x'.repeat(500)}` }]);
  for (const data of [Buffer.alloc(200, 1), Buffer.alloc(203, 1)]) await writer.publish('n', data);
  for (const ear of ears) {
    await received(ear, 9);
    const data = ear.got.map((message) => message.data);
    assert.deepEqual(data.slice(0, 5), VERSIONS);
    assert.equal(data[6], `${'x'.repeat(500)}y${'x'.repeat(500)}`);
    assert.deepEqual(Buffer.from(data[8]), Buffer.alloc(203, 1));
    // Not of the first, and not where nothing is the same.
    assert.equal(ear.calls.length, 6);
    assert.ok(ear.calls.at(-1) < 40);
  }
  await writer.setOptions({ cipher });
  await ears[0].channel.setOptions({ cipher, params: { delta: 'vcdiff' } });
  for (const data of VERSIONS) await writer.publish('n', data);
  await received(ears[0], 14);
  assert.deepEqual(ears[0].got.slice(9).map(({ data }) => data), VERSIONS);
});

test('deltas: appends, updates and deletes in between', async (t) => {
  const name = unique('plain');
  const ear = reader(t, name);
  await ear.channel.subscribe((message) => ear.got.push([message.action, message.data]));
  const writer = connect(t, 'alice').channels.get(name);
  const { serials } = await writer.publish('n', VERSIONS[0]);
  const text = await writer.publish('n', 'a text that is long enough for a delta');
  await writer.appendMessage({ serial: text.serials[0], data: ', and longer than it was before' });
  await writer.publish('n', ', and longer than it was before!');
  await writer.updateMessage({ serial: serials[0], data: VERSIONS[1] });
  await writer.publish('n', VERSIONS[2]);
  await writer.deleteMessage({ serial: serials[0] });
  await writer.publish('n', VERSIONS[3]);
  await received(ear, 8);
  assert.deepEqual(ear.got, [
    ['message.create', VERSIONS[0]],
    ['message.create', 'a text that is long enough for a delta'],
    ['message.append', ', and longer than it was before'],
    ['message.create', ', and longer than it was before!'],
    ['message.update', VERSIONS[1]],
    ['message.create', VERSIONS[2]],
    ['message.delete', VERSIONS[1]],
    ['message.create', VERSIONS[3]],
  ]);
  assert.equal(ear.calls.length, 3);
});

test('deltas: a client that cannot decode one attaches again and misses nothing', async (t) => {
  for (const spoil of ['decoding', 'base']) {
    const name = unique('plain');
    const ear = reader(t, name, (call) => assert.ok(spoil !== 'decoding' || call !== 2, 'spoilt'));
    const reasons = [];
    ear.channel.on('attaching', (change) => reasons.push(change.reason?.code));
    await ear.channel.subscribe(({ data }) => {
      ear.got.push(data);
      if (spoil === 'base' && ear.got.length === 2) ear.channel._lastPayload.messageId = null;
    });
    reasons.length = 0;
    const writer = connect(t, 'alice').channels.get(name);
    for (const data of VERSIONS) await writer.publish('n', data);
    await received(ear, 5);
    assert.deepEqual(ear.got, VERSIONS);
    assert.deepEqual(reasons, [40018]);
  }
});

test('deltas: after a resume, with a rewind, and without a decoder', async (t) => {
  const name = unique('plain');
  const ear = reader(t, name);
  await ear.channel.subscribe(({ data }) => ear.got.push(data));
  const writer = connect(t, 'alice').channels.get(name);
  for (const data of VERSIONS.slice(0, 2)) await writer.publish('n', data);
  await received(ear, 2);
  await cut(ear.client);
  for (const data of VERSIONS.slice(2, 4)) await writer.publish('n', data);
  await received(ear, 4);
  await writer.publish('n', VERSIONS[4]);
  await received(ear, 5);
  assert.deepEqual(ear.got, VERSIONS);
  const late = reader(t, name);
  await late.channel.setOptions({ params: { delta: 'vcdiff', rewind: '3' } });
  await late.channel.subscribe(({ data }) => late.got.push(data));
  await received(late, 3);
  assert.deepEqual(late.got, VERSIONS.slice(2));
  const without = connect(t, 'carol').channels.get(name, { params: { delta: 'vcdiff' } });
  await without.subscribe(() => {});
  const failed = new Promise((resolve) => without.once('failed', resolve));
  for (const data of VERSIONS) await writer.publish('n', data);
  assert.equal((await failed).reason.code, 40019);
});

test('not supported: LiveObjects — the modes are not granted, so calls fail at once', async (t) => {
  const channel = connect(t, 'alice').channels.get(unique('plain'), { modes: ['SUBSCRIBE', 'OBJECT_SUBSCRIBE', 'OBJECT_PUBLISH'] });
  await channel.attach();
  assert.deepEqual(channel.modes, ['subscribe']);
});

test('derived channels: a filter on name, headers and clientId, from the create to the last append', async (t) => {
  const name = unique('plain');
  const writer = connect(t, 'alice', {}, 1).channels.get(name);
  const client = connect(t, 'bob');
  const byHeader = client.channels.getDerived(name, { filter: 'headers.region == `"north"` && name == `"n"`' });
  const byClient = client.channels.getDerived(`[?rewind=2]${name}`, { filter: 'clientId == `"alice"` && headers.n > `1`' });
  const [heard, rewound] = [[], []];
  await writer.attach();
  for (const n of [1, 2, 3]) await writer.publish({ name: 'n', data: String(n), extras: { headers: { n, region: n === 2 ? 'north' : 'south' } } });
  await byHeader.subscribe((message) => heard.push([message.action, message.data]));
  await byClient.subscribe((message) => rewound.push(message.data));
  assert.deepEqual(byHeader.modes, ['subscribe']);
  await writer.publish({ name: 'n', data: 'no', extras: { headers: { region: 'south' } } });
  await writer.publish([
    { name: 'other', data: 'no', extras: { headers: { region: 'north' } } },
    { name: 'n', data: 'yes', extras: { headers: { region: 'north' } } },
  ]);
  const { serials } = await writer.publish({ name: 'n', data: 'a', extras: { headers: { region: 'south' } } });
  await writer.appendMessage({ serial: serials[0], data: 'b' });
  await writer.appendMessage({ serial: serials[0], data: 'c', extras: { headers: { region: 'north' } } });
  await writer.appendMessage({ serial: serials[0], data: 'd', extras: { headers: { region: 'north' } } });
  await until('the last append', (check) => (byHeader.subscribe(check), () => byHeader.unsubscribe(check)), () => heard.at(-1)?.[1] === 'abcd', {
    describe: () => heard,
  });
  assert.deepEqual(heard[0], ['message.create', 'yes']);
  assert.ok(heard.slice(1).every(([action, data]) => action === 'message.update' && ['abc', 'abcd'].includes(data)), JSON.stringify(heard));
  assert.deepEqual(rewound.slice(0, 2), ['2', '3']);
  const page = await byHeader.history();
  assert.deepEqual(page.items.map(({ data }) => data), ['abcd', 'yes', '2']);
});

test('derived channels: for subscribing only, and a bad filter fails that channel', async (t) => {
  const client = connect(t, 'alice');
  const channel = client.channels.getDerived(unique('plain'), { filter: 'name' });
  await refused(channel.publish('n', 'x'), 40165);
  await channel.attach();
  await refused(channel.publish('n', 'x'), 40165);
  await refused(channel.presence.enter(), 40160);
  await refused(client.channels.getDerived(unique('plain'), { filter: 'name ==' }).attach(), 40010);
  assert.equal(client.connection.state, 'connected');
});

test('appendMode=full: appends come as the whole text, of new and of older messages', async (t) => {
  const name = unique('plain');
  const writer = connect(t, 'alice', { transportParams: { appendRollupWindow: 0 } }, 1).channels.get(name);
  const channel = connect(t, 'bob').channels.get(name, { params: { appendMode: 'full' } });
  const heard = [];
  await channel.subscribe(({ action, data }) => heard.push([action, data]));
  const { serials } = await writer.publish('n', 'a');
  for (const data of ['b', 'c']) await writer.appendMessage({ serial: serials[0], data });
  await until('all', (check) => (channel.subscribe(check), () => channel.unsubscribe(check)), () => heard.at(-1)?.[1] === 'abc', { describe: () => heard });
  assert.deepEqual(heard[0], ['message.create', 'a']);
  assert.ok(heard.slice(1).every(([action, data]) => action === 'message.update' && data.startsWith('ab')), JSON.stringify(heard));
});

/** Resolve with the first occupancy event of a channel that says two subscribers. */
function twoSubscribers(channel) {
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('no event said two subscribers')), 20_000).unref();
    const listen = (message) => message.data.metrics.subscribers === 2 && resolve(message);
    channel.subscribe('[meta]occupancy', listen).catch(reject);
  });
}

test('occupancy events: all metrics, or one of them', async (t) => {
  const name = unique('plain');
  const all = connect(t, 'alice').channels.get(name, { params: { occupancy: 'metrics' } });
  const one = connect(t, 'bob', {}, 1).channels.get(name, { params: { occupancy: 'metrics.subscribers' } });
  const [ofAll, ofOne] = await Promise.all([all, one].map(twoSubscribers));
  assert.equal(ofAll.action, 'meta');
  assert.equal(ofAll.data.metrics.connections, 2);
  assert.deepEqual(ofOne.data.metrics, { subscribers: 2 });
  assert.deepEqual(all.params, { occupancy: 'metrics' });
});
