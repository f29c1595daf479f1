// Presence through ably-js: enter, update, leave, get, subscribe, synchronisation, loss and re-entry.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { closed, connect, options, rest, unique, until } from './support.mjs';

/** A channel of a new client; `events` fills with every presence event it learns of. */
async function watch(t, name, clientId, extra = {}, gateway = 0) {
  const client = connect(t, clientId, extra, gateway);
  const channel = client.channels.get(name);
  const events = [];
  const listeners = new Set();
  await channel.presence.subscribe((event) => {
    events.push(event);
    for (const listener of [...listeners]) listener();
  });
  const reported = (what, condition, more = {}) =>
    until(
      what,
      (check) => {
        listeners.add(check);
        return () => listeners.delete(check);
      },
      () => condition(events),
      { describe: () => brief(events), ...more },
    );
  return { client, channel, presence: channel.presence, events, reported };
}

function brief(events) {
  return events.map(({ action, clientId, data }) => [action, clientId, data]);
}

async function members(presence, params) {
  return (await presence.get(params)).map(({ clientId, data }) => [clientId, data]).sort();
}

/** Drop the socket under a client; it comes back on its own, with `resume`. */
function cut(client) {
  const back = new Promise((resolve) => {
    client.connection.once('disconnected', () => client.connection.once('connected', resolve));
  });
  client.connection.connectionManager.activeProtocol.getTransport().disconnect();
  return back;
}

/** A client in a process of its own that entered `name`; `kill` ends it without a word. */
async function victim(t, name, clientId, remainPresentFor) {
  const program = `
    import { connect } from './support.mjs';
    const client = connect({ after() {} }, ${JSON.stringify(clientId)}, { transportParams: { remainPresentFor: '${remainPresentFor}' } });
    await client.channels.get(${JSON.stringify(name)}).presence.enter('last words');
    console.log('entered');
  `;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    cwd: import.meta.dirname,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const [first] = await once(child.stdout, 'data');
  assert.match(String(first), /entered/);
  return { kill: () => child.kill('SIGKILL') };
}

function left(clientId) {
  return (events) => events.some((event) => event.action === 'leave' && event.clientId === clientId);
}

test('pre_1 pre_6 enter, update and leave reach everyone, on every gateway, with any kind of data', async (t) => {
  const name = unique('plain');
  const near = await watch(t, name, 'near');
  const far = await watch(t, name, 'far', {}, 1);
  const channel = connect(t, 'ann').channels.get(name);
  await channel.presence.enter('first');
  await channel.presence.update({ status: 'busy', n: [1] });
  await channel.presence.update(Buffer.from([0, 255]));
  await channel.presence.leave('bye');
  for (const watcher of [near, far]) {
    await watcher.reported('all four', (events) => events.length === 4);
    const [entered, busy, binary, left] = watcher.events;
    assert.deepEqual([entered.action, entered.clientId, entered.data], ['enter', 'ann', 'first']);
    assert.deepEqual([busy.action, busy.data], ['update', { status: 'busy', n: [1] }]);
    assert.deepEqual([binary.action, Buffer.from(binary.data)], ['update', Buffer.from([0, 255])]);
    assert.deepEqual([left.action, left.data], ['leave', 'bye']);
    assert.ok(Math.abs(entered.timestamp - Date.now()) < 60_000);
    assert.equal(entered.id.split(':')[0], entered.connectionId);
  }
});

test('leave without data carries the last', async (t) => {
  const name = unique('plain');
  const watcher = await watch(t, name, 'watcher');
  const channel = connect(t, 'ann').channels.get(name);
  await channel.presence.enter({ mood: 'fine' });
  await channel.presence.leave();
  await watcher.reported('leave', (events) => events.length === 2);
  assert.deepEqual(watcher.events[1].data, { mood: 'fine' });
});

test('pre_7 entering needs no connection and no attachment yet', async (t) => {
  const channel = connect(t, 'ann').channels.get(unique('plain'));
  // The answer to entering and the event have no fixed order.
  const reported = new Promise((resolve) => channel.presence.subscribe('enter', resolve));
  await channel.presence.enter('early');
  await reported;
  assert.deepEqual(await members(channel.presence), [['ann', 'early']]);
});

test('pre_5 dev_13 one client id on two devices is two members; the user is gone when both left', async (t) => {
  const name = unique('plain');
  const watcher = await watch(t, name, 'watcher', {}, 1);
  const devices = [connect(t, 'ann'), connect(t, 'ann', {}, 1)];
  for (const [index, device] of devices.entries()) await device.channels.get(name).presence.enter(`device ${index}`);
  await watcher.reported('both', (events) => events.length === 2);
  assert.deepEqual(await members(watcher.presence), [['ann', 'device 0'], ['ann', 'device 1']]);
  await devices[0].channels.get(name).presence.leave();
  await watcher.reported('one left', (events) => events.length === 3);
  assert.deepEqual(await members(watcher.presence, { clientId: 'ann' }), [['ann', 'device 1']]);
  await devices[1].channels.get(name).presence.leave();
  await watcher.reported('both left', (events) => events.length === 4);
  assert.deepEqual(await members(watcher.presence), []);
});

test('a late joiner gets all members, page by page', async (t) => {
  const name = unique('plain');
  const crowd = connect(t, undefined).channels.get(name);
  await crowd.attach();
  const names = Array.from({ length: 250 }, (_, n) => `member-${String(n).padStart(3, '0')}`);
  await Promise.all(names.map((clientId) => crowd.presence.enterClient(clientId, clientId)));
  const late = connect(t, 'late', {}, 1).channels.get(name);
  const found = await members(late.presence);
  assert.deepEqual(found, names.map((clientId) => [clientId, clientId]));
  const [one] = await late.presence.get({ clientId: 'member-123' });
  assert.equal(one.action, 'present');
});

test('detach and close are immediate leaves', async (t) => {
  const name = unique('plain');
  const watcher = await watch(t, name, 'watcher', {}, 1);
  const ann = connect(t, 'ann');
  const bob = connect(t, 'bob');
  await ann.channels.get(name).presence.enter();
  await bob.channels.get(name).presence.enter();
  await ann.channels.get(name).detach();
  await watcher.reported('ann left', left('ann'));
  await closed(bob);
  await watcher.reported('bob left', left('bob'));
  assert.deepEqual(await members(watcher.presence), []);
});

test('pre_3 members of a lost connection leave after the time it asked for', async (t) => {
  const name = unique('plain');
  const watcher = await watch(t, name, 'watcher', {}, 1);
  const ann = await victim(t, name, 'ann', 1000);
  await watcher.reported('ann', (events) => events.length === 1);
  const lost = Date.now();
  ann.kill();
  await watcher.reported('gone', left('ann'));
  assert.deepEqual(brief(watcher.events), [['enter', 'ann', 'last words'], ['leave', 'ann', 'last words']]);
  assert.ok(Date.now() - lost >= 900 && Date.now() - lost < 5000, `left after ${Date.now() - lost} ms`);
  assert.deepEqual(await members(watcher.presence), []);
});

test('pre_12 a client that comes back, to another gateway, never left', async (t) => {
  const name = unique('plain');
  const watcher = await watch(t, name, 'watcher', {}, 1);
  const client = connect(t, 'ann', { transportParams: { remainPresentFor: '1000' } });
  const channel = client.channels.get(name);
  await channel.presence.enter('here');
  const { id } = client.connection;
  const other = await victim(t, name, 'other', 1000);
  client.options.port = options({}, 1).port;
  await cut(client);
  assert.equal(client.connection.id, id);
  await channel.whenState('attached');
  await channel.presence.update('still here');
  // What is lost later, for as long, is a clock: were ann going to leave, she would leave first.
  other.kill();
  await watcher.reported('the other left', left('other'));
  const hers = watcher.events.filter(({ clientId }) => clientId === 'ann');
  assert.deepEqual(brief(hers), [['enter', 'ann', 'here'], ['update', 'ann', 'still here']]);
  assert.deepEqual(await members(watcher.presence), [['ann', 'still here']]);
});

test('a watcher that was away learns what changed', async (t) => {
  const name = unique('plain');
  const watcher = await watch(t, name, 'watcher');
  const ann = connect(t, 'ann').channels.get(name);
  const bob = connect(t, 'bob').channels.get(name);
  await ann.presence.enter();
  await watcher.reported('ann', (events) => events.length === 1);
  const back = cut(watcher.client);
  await Promise.all([ann.presence.leave(), bob.presence.enter('new')]);
  await back;
  await watcher.reported('both changes', () => watcher.events.length >= 3);
  assert.deepEqual(await members(watcher.presence), [['bob', 'new']]);
});

test('pre_8 what presence needs is checked, with typed errors', async (t) => {
  const name = unique('plain');
  const anonymous = connect(t, undefined).channels.get(name);
  await anonymous.attach();
  await assert.rejects(anonymous.presence.enter(), (error) => error.statusCode === 400);
  const ann = connect(t, 'ann').channels.get(name);
  await ann.attach();
  await assert.rejects(ann.presence.enterClient('bob'), { code: 40012 });
  const token = async (capability) =>
    (await rest().auth.requestToken({ clientId: 'ann', capability: JSON.stringify({ '*': capability }) })).token;
  const reader = connect(t, undefined, { key: undefined, token: await token(['subscribe']) }).channels.get(name);
  await assert.rejects(reader.presence.enter(), { code: 40160 });
  assert.deepEqual(await members(reader.presence), []);
  const writer = connect(t, undefined, { key: undefined, token: await token(['presence']) }).channels.get(name);
  const reported = new Promise((resolve) => ann.presence.subscribe('enter', resolve));
  await writer.presence.enter('unseen');
  await reported;
  assert.deepEqual(await members(ann.presence), [['ann', 'unseen']]);
});

test('rest lists members and events', async (t) => {
  const name = unique('plain');
  const crowd = connect(t, undefined).channels.get(name);
  await crowd.attach();
  for (const clientId of ['a', 'b', 'c', 'd', 'e']) await crowd.presence.enterClient(clientId, { of: clientId });
  await crowd.presence.leaveClient('e');
  const { presence } = rest().channels.get(name);
  let page = await presence.get({ limit: 3 });
  const found = [...page.items];
  while (page.hasNext()) found.push(...(page = await page.next()).items);
  assert.deepEqual(found.map(({ clientId, data, action }) => [clientId, data.of, action]),
    ['a', 'b', 'c', 'd'].map((clientId) => [clientId, clientId, 'present']));
  assert.deepEqual((await presence.get({ clientId: 'b' })).items.map(({ clientId }) => clientId), ['b']);
  assert.deepEqual((await presence.get({ connectionId: 'no-one' })).items, []);
  const newest = await presence.history({ limit: 2 });
  assert.deepEqual(brief(newest.items).map(([action, clientId]) => [action, clientId]), [['leave', 'e'], ['enter', 'e']]);
  const rest_ = await newest.next();
  assert.deepEqual(rest_.items.map(({ clientId }) => clientId), ['d', 'c']);
  const oldest = await presence.history({ direction: 'forwards' });
  assert.deepEqual(oldest.items.map(({ clientId }) => clientId), ['a', 'b', 'c', 'd', 'e', 'e']);
});
