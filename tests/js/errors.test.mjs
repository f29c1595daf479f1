// Refusals, as ably-js reports them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KEY, connect, eavesdrop, rest, unique } from './support.mjs';

test('a wrong secret: the connection fails with 40101', async (t) => {
  const client = connect(t, 'alice', { key: `${KEY.split(':')[0]}:wrong` });
  await client.connection.whenState('failed');
  assert.equal(client.connection.errorReason.code, 40101);
  assert.equal(client.connection.errorReason.statusCode, 401);
});

test('an unknown key: the connection fails with 40101', async (t) => {
  const client = connect(t, 'alice', { key: 'no-one.key:secret' });
  await client.connection.whenState('failed');
  assert.equal(client.connection.errorReason.code, 40101);
});

test('bad channel names: 40010, and the connection stays', async (t) => {
  const client = connect(t, 'alice');
  for (const name of [':x', '[x', ',x', ' x', 'a\nb']) {
    const channel = client.channels.get(name);
    await assert.rejects(channel.attach(), { code: 40010 }, JSON.stringify(name));
    assert.equal(channel.state, 'failed');
    await assert.rejects(rest().channels.get(name).history(), { code: 40010 }, JSON.stringify(name));
  }
  assert.equal(client.connection.state, 'connected');
  await client.channels.get(unique('plain')).attach();
});

test('a message that is too large: 40009, and the channel stays', async (t) => {
  const channel = connect(t, 'alice').channels.get(unique('plain'));
  await assert.rejects(channel.publish('big', 'x'.repeat(70_000)), { code: 40009 });
  await channel.publish('small', 'x');
});

test('a change to a message that does not exist: 40400', async (t) => {
  const name = unique('plain');
  const channel = connect(t, 'alice').channels.get(name);
  const other = connect(t, 'alice').channels.get(unique('plain'));
  const { serials } = await other.publish('elsewhere', 'x');
  await assert.rejects(channel.updateMessage({ serial: serials[0], data: 'y' }), { code: 40400 });
});

test('an append of another kind of data: refused', async (t) => {
  const channel = connect(t, 'alice').channels.get(unique('plain'));
  const { serials } = await channel.publish('text', 'x');
  await assert.rejects(channel.appendMessage({ serial: serials[0], data: Buffer.from([1]) }), { statusCode: 400 });
});

test('a token without the right: 40160, and only for that operation', async (t) => {
  const name = unique('plain');
  const token = await rest().auth.requestToken({ clientId: 'reader', capability: { [name]: ['subscribe'] } });
  const channel = connect(t, undefined, { key: undefined, token: token.token }).channels.get(name);
  await channel.attach();
  await assert.rejects(channel.publish('x', 'y'), { code: 40160 });
  await assert.rejects(channel.history(), { code: 40160 });
  const ear = await eavesdrop(t, name);
  assert.deepEqual(ear.heard, []);
});

test('another\'s client id: 40012', async (t) => {
  const token = await rest().auth.requestToken({ clientId: 'alice' });
  const client = connect(t, undefined, { key: undefined, token: token.token });
  const channel = client.channels.get(unique('plain'));
  await channel.attach();
  await assert.rejects(channel.publish({ name: 'x', clientId: 'bob' }), { code: 40012 });
});

test('a token that no one issued: refused, not retried forever', async (t) => {
  const client = connect(t, 'alice', { key: undefined, token: 'not-a-token' });
  await client.connection.whenState('failed');
  assert.ok([40005, 40101, 40171, 40142].includes(client.connection.errorReason.code));
});
