// Appends of the SDK gathered by the gateway: how many frames readers get, and that nothing else changes.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connect, prompt, quick, tokens, TooSlow, unique } from './support.mjs';

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** A reader of `name` on the other gateway: its messages in order, and a promise for the first that `stop` likes. */
async function reader(t, name) {
  const channel = connect(t, undefined, {}, 1).channels.get(name);
  const messages = [];
  const waiting = [];
  await channel.subscribe((message) => {
    messages.push(message);
    for (const [stop, resolve] of [...waiting]) if (stop(message)) resolve(message);
  });
  return { messages, until: (stop) => new Promise((resolve) => waiting.push([stop, resolve])) };
}

/** What a reader makes of the messages of one serial. */
function assembled(messages, serial) {
  let text = '';
  for (const { serial: of, action, data } of messages) {
    if (of === serial) text = action === 'message.append' ? text + data : data;
  }
  return text;
}

const appendsTo = (messages, serial) => messages.filter((m) => m.serial === serial && m.action === 'message.append');

async function writer(t, name, window) {
  const transportParams = window === undefined ? {} : { appendRollupWindow: String(window) };
  const channel = connect(t, `writer-${name}`, { transportParams }).channels.get(name);
  await channel.attach();
  return channel;
}

async function created(channel, name = 'out') {
  const { serials } = await channel.publish({ name, data: '' });
  return serials[0];
}

// 200 tokens in about a second: at most one frame per window and the first, and the closing one.
for (const [window, low] of [[0, 201], [20, 15], [undefined, 10], [100, 5], [500, 2]]) {
  prompt(`str-8 a window of ${window ?? 'the default'} ms`, async (t) => {
    const name = unique('plain');
    const far = await reader(t, name);
    const channel = await writer(t, name, window);
    const serial = await created(channel);
    const closed = far.until((message) => message.extras?.headers?.status === 'complete');
    const results = [];
    const began = performance.now();
    for (let index = 0; index < 200; index += 1) {
      results.push(channel.appendMessage({ serial, data: `${index} ` }));
      await sleep(5);
    }
    results.push(channel.appendMessage({ serial, data: '', extras: { headers: { status: 'complete' } } }));
    const versions = (await Promise.all(results)).map((result) => result.versionSerial);
    const last = await closed;
    const high = window === 0 ? 201 : Math.ceil((performance.now() - began) / (window ?? 40)) + 2;
    assert.equal(assembled(far.messages, serial), tokens(200));
    const frames = appendsTo(far.messages, serial);
    assert.ok(frames.length <= high, `${frames.length} frames, at most ${high}`);
    // Where a gateway is kept waiting, what comes meanwhile is one frame.
    if (frames.length < low) throw new TooSlow({ message: `${frames.length} frames instead of ${low}` });
    // Each append has a version of its own, in order; a frame has that of the last append in it.
    assert.equal(new Set(versions).size, 201);
    assert.deepEqual([...versions].sort(), versions);
    assert.equal(last.version.serial, versions.at(-1));
    for (const frame of frames) assert.ok(versions.includes(frame.version.serial));
    const stored = await channel.getMessage(serial);
    assert.equal(stored.data, tokens(200));
    assert.equal(stored.version.serial, versions.at(-1));
  });
}

prompt('held appends leave before anything else of their publisher', async (t) => {
  const name = unique('plain');
  const far = await reader(t, name);
  const channel = await writer(t, name, 500);
  const serial = await created(channel);
  const finished = far.until((message) => message.name === 'finish');
  const began = Date.now();
  const pending = Array.from({ length: 20 }, (_, index) => channel.appendMessage({ serial, data: `${index} ` }));
  await channel.publish('finish', 'done');
  await finished;
  const took = Date.now() - began;
  assert.equal(far.messages.at(-1).name, 'finish');
  assert.equal(assembled(far.messages, serial), tokens(20));
  await Promise.all(pending);
  // The window was not waited for.
  quick(took, 400);
});

test('an update replaces what was appended before it', async (t) => {
  const name = unique('plain');
  const far = await reader(t, name);
  const channel = await writer(t, name, 500);
  const serial = await created(channel);
  const pending = ['a', 'b', 'c'].map((data) => channel.appendMessage({ serial, data }));
  pending.push(channel.updateMessage({ serial, data: 'whole' }), channel.appendMessage({ serial, data: '!' }));
  await Promise.all(pending);
  const stored = await channel.getMessage(serial);
  assert.equal(stored.data, 'whole!');
  if (assembled(far.messages, serial) !== 'whole!') await far.until(() => assembled(far.messages, serial) === 'whole!');
});

test('a publisher that awaits each append is not slowed down to the window', async (t) => {
  const channel = await writer(t, unique('plain'), 500);
  const serial = await created(channel);
  const began = Date.now();
  for (let index = 0; index < 100; index += 1) await channel.appendMessage({ serial, data: `${index} ` });
  // Held for its window each, they would take 50 s.
  assert.ok(Date.now() - began < 20_000, `${Date.now() - began} ms`);
  assert.equal((await channel.getMessage(serial)).data, tokens(100));
});

test('appends that were held when the connection dropped are written once', async (t) => {
  const name = unique('plain');
  const far = await reader(t, name);
  const channel = await writer(t, name, 500);
  const serial = await created(channel);
  const pending = Array.from({ length: 10 }, (_, index) => channel.appendMessage({ serial, data: `${index} ` }));
  await sleep(50);
  channel.client.connection.connectionManager.disconnectAllTransports();
  pending.push(...Array.from({ length: 10 }, (_, index) => channel.appendMessage({ serial, data: `${index + 10} ` })));
  const versions = (await Promise.all(pending)).map((result) => result.versionSerial);
  assert.equal(new Set(versions).size, 20);
  assert.equal((await channel.getMessage(serial)).data, tokens(20));
  if (assembled(far.messages, serial) !== tokens(20)) await far.until(() => assembled(far.messages, serial) === tokens(20));
});

test('con-2 a hundred streams through one connection', async (t) => {
  const name = unique('plain');
  const far = await reader(t, name);
  const channel = await writer(t, name);
  const streams = await Promise.all(Array.from({ length: 100 }, (_, index) => created(channel, `out-${index}`)));
  const left = new Set(streams);
  const all = far.until((message) => {
    if (message.extras?.headers?.status === 'complete') left.delete(message.serial);
    return left.size === 0;
  });
  const results = await Promise.all(
    streams.map(async (serial) => {
      const pending = [];
      for (let index = 0; index < 30; index += 1) {
        pending.push(channel.appendMessage({ serial, data: `${index} ` }));
        await sleep(20);
      }
      pending.push(channel.appendMessage({ serial, data: '', extras: { headers: { status: 'complete' } } }));
      return Promise.all(pending);
    }),
  );
  await all;
  assert.ok(results.flat().every((result) => result.versionSerial));
  for (const serial of streams) assert.equal(assembled(far.messages, serial), tokens(30));
});
