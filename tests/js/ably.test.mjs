// Plain ably-js against the gateway: connecting, channels, messages that change, history, tokens.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect, eavesdrop, options, rest, unique } from './support.mjs';

test('connects, attaches, detaches, closes', async (t) => {
  const client = connect(t, 'alice');
  await client.connection.whenState('connected');
  assert.ok(client.connection.id && client.connection.key);
  const channel = client.channels.get(unique('plain'));
  const change = await channel.attach();
  assert.equal(change.current, 'attached');
  assert.equal(change.resumed, false);
  assert.ok(channel.properties.attachSerial);
  await channel.detach();
  assert.equal(channel.state, 'detached');
  assert.equal(typeof (await client.connection.ping()), 'number');
});

test('every kind of data arrives as it was sent', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const channel = connect(t, 'alice').channels.get(name);
  const sent = ['text', 'ünï ✓', { a: [1, { b: null }] }, [1, 2], Buffer.from([0, 1, 255]), '', undefined];
  for (const data of sent) await channel.publish('kind', data);
  await ear.hears('all', (heard) => heard.length === sent.length);
  sent.forEach((data, index) => {
    const got = ear.heard[index].data;
    if (Buffer.isBuffer(data)) assert.deepEqual(Buffer.from(got), data);
    else assert.deepEqual(got, data);
  });
});

test('deliveries carry identity, time and order', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name);
  const client = connect(t, 'alice');
  const channel = client.channels.get(name);
  const result = await channel.publish({ name: 'hello', data: 'x', extras: { headers: { a: '1' } } });
  const batch = await channel.publish([{ name: 'b0' }, { name: 'b1' }, { name: 'b2' }]);
  await ear.hears('four', (heard) => heard.length === 4);
  const [first, ...rest] = ear.heard;
  assert.equal(first.action, 'message.create');
  assert.equal(first.clientId, 'alice');
  assert.equal(first.connectionId, client.connection.id);
  assert.deepEqual(first.extras, { headers: { a: '1' } });
  assert.ok(Math.abs(first.timestamp - Date.now()) < 60_000);
  assert.equal(new Set(ear.heard.map((message) => message.id)).size, 4);
  assert.deepEqual(rest.map((message) => message.name), ['b0', 'b1', 'b2']);
  const serials = ear.heard.map((message) => message.serial);
  assert.deepEqual(serials, [...serials].sort());
  assert.deepEqual([...result.serials, ...batch.serials], serials);
});

test('a publisher hears itself, unless it asked not to', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name);
  const hears = async (extra) => {
    const channel = connect(t, 'alice', extra).channels.get(name);
    const own = [];
    await channel.subscribe((message) => own.push(message.name));
    await channel.publish('mine');
    await ear.channel.publish('other');
    const last = new Promise((resolve) => channel.subscribe('last', resolve));
    await Promise.all([last, ear.channel.publish('last')]);
    return own;
  };
  assert.deepEqual(await hears({}), ['mine', 'other', 'last']);
  assert.deepEqual(await hears({ echoMessages: false }), ['other', 'last']);
});

test('a message published twice under one id is one message', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name);
  const channel = connect(t, 'alice').channels.get(name);
  await channel.publish({ id: 'once', name: 'a', data: '1' });
  await channel.publish({ id: 'once', name: 'a', data: '1' });
  await channel.publish('after');
  await ear.hears('the later one', (heard) => heard.at(-1)?.name === 'after');
  assert.deepEqual(ear.heard.map((message) => message.name), ['a', 'after']);
});

test('append, update, delete', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const channel = connect(t, 'alice').channels.get(name);
  const { serials } = await channel.publish({ name: 'stream', data: 'Once', extras: { headers: { step: '0' } } });
  const [serial] = serials;
  const words = [' upon', ' a', ' time'];
  const versions = await Promise.all(words.map((data) => channel.appendMessage({ serial, data })));
  await ear.hears('all words', (heard) => heard.at(-1)?.version.serial === versions.at(-1).versionSerial);
  const appended = ear.heard.slice(1);
  assert.ok(appended.every((message) => message.action === 'message.append' && message.name === 'stream' && message.serial === serial));
  assert.equal(appended.map((message) => message.data).join(''), words.join(''));

  await channel.updateMessage({ serial, data: 'Never' }, { description: 'second thoughts' });
  await ear.hears('the update', (heard) => heard.at(-1).action === 'message.update');
  const updated = ear.heard.at(-1);
  assert.deepEqual([updated.name, updated.data, updated.version.description], ['stream', 'Never', 'second thoughts']);

  await channel.deleteMessage({ serial });
  await ear.hears('the delete', (heard) => heard.at(-1).action === 'message.delete');
  const all = ear.heard.map((message) => message.version.serial);
  assert.deepEqual(all, [...all].sort());
  assert.equal((await channel.history()).items.length, 1);
  assert.equal((await channel.getMessage(serial)).action, 'message.delete');
});

test('who attaches in mid-stream gets the whole text first', async (t) => {
  const name = unique('plain');
  const channel = connect(t, 'alice').channels.get(name);
  const { serials } = await channel.publish('stream', 'a');
  await channel.appendMessage({ serial: serials[0], data: 'b' });
  const ear = await eavesdrop(t, name);
  await channel.appendMessage({ serial: serials[0], data: 'c' });
  await ear.hears('something', (heard) => heard.length > 0);
  const [first] = ear.heard;
  assert.deepEqual([first.action, first.name, first.data], ['message.update', 'stream', 'abc']);
  await channel.appendMessage({ serial: serials[0], data: 'd' });
  await ear.hears('the next', (heard) => heard.length > 1);
  assert.deepEqual([ear.heard[1].action, ear.heard[1].data], ['message.append', 'd']);
});

test('history: pages, directions, aggregated, up to the attach', async (t) => {
  const name = unique('plain');
  const writer = connect(t, 'alice').channels.get(name);
  for (let index = 0; index < 5; index += 1) await writer.publish('n', String(index));
  const { serials } = await writer.publish('n', 'stream');
  await writer.appendMessage({ serial: serials[0], data: 'ed' });
  const expected = ['0', '1', '2', '3', '4', 'streamed'];

  const reader = connect(t, 'bob', {}, 1).channels.get(name);
  await reader.attach();
  await writer.publish('n', 'after the attach');
  const attached = await reader.history({ untilAttach: true });
  assert.deepEqual(attached.items.map((message) => message.data), expected.toReversed());

  const forwards = [];
  let page = await reader.history({ direction: 'forwards', limit: 2 });
  for (; page; page = page.hasNext() ? await page.next() : null) {
    assert.ok(page.items.length <= 2);
    forwards.push(...page.items.map((message) => message.data));
  }
  assert.deepEqual(forwards, [...expected, 'after the attach']);
});

test('history over REST, and publish over REST', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name);
  const channel = rest({ clientId: 'alice' }, 1).channels.get(name);
  await channel.publish('one', { n: 1 });
  await ear.hears('it', (heard) => heard.length === 1);
  assert.deepEqual([ear.heard[0].name, ear.heard[0].data], ['one', { n: 1 }]);
  const { items } = await channel.history();
  assert.deepEqual(items.map((message) => [message.name, message.data]), [['one', { n: 1 }]]);
});

test('a dropped socket is resumed and nothing is missed', async (t) => {
  const name = unique('plain');
  const client = connect(t, 'alice');
  const channel = client.channels.get(name);
  const heard = [];
  await channel.subscribe((message) => heard.push(message.data));
  const id = client.connection.id;
  const writer = connect(t, 'bob', {}, 1).channels.get(name);
  await writer.publish('n', '0');
  const back = new Promise((resolve) => client.connection.once('disconnected', () => client.connection.once('connected', resolve)));
  client.connection.connectionManager.activeProtocol.getTransport().disconnect();
  await writer.publish('n', '1');
  await back;
  await writer.publish('n', '2');
  const last = new Promise((resolve) => channel.subscribe('last', resolve));
  await Promise.all([last, writer.publish('last', 'last')]);
  assert.deepEqual(heard, ['0', '1', '2', 'last']);
  assert.equal(client.connection.id, id);
});

test('tokens: a token request signed elsewhere, limited to a client and a channel', async (t) => {
  const name = unique('plain');
  const issuer = rest();
  const authCallback = (params, done) =>
    issuer.auth
      .createTokenRequest({ ...params, clientId: 'alice', capability: { [name]: ['publish', 'subscribe'] } })
      .then((request) => done(null, request), (error) => done(error, null));
  const client = connect(t, undefined, { key: undefined, authCallback });
  await client.connection.whenState('connected');
  assert.equal(client.auth.clientId, 'alice');
  await client.channels.get(name).publish('hello');
  await assert.rejects(client.channels.get(unique('plain')).attach(), { code: 40160 });
});

test('the time of the server', async () => {
  const { Rest } = await import('ably');
  const time = await new Rest(options()).time();
  assert.ok(Math.abs(time - Date.now()) < 60_000);
});
