// Turns of the Python worker, driven and watched by the unmodified `@ably/ai-transport`.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  begun,
  closed,
  eavesdrop,
  ended,
  isContentOf,
  join,
  prompt,
  question,
  quick,
  said,
  seen,
  send,
  startTurn,
  status,
  terminals,
  textOf,
  tokens,
  transcript,
  transportHeaders,
  unique,
  wake,
} from './support.mjs';

const ENDLESS = 'script: tokens=5000 rate=50';

/** What P2 promises, as any subscriber can see it: no words of the turn after its cancel. */
function assertSilentAfterCancel(heard, runId) {
  const at = heard.findIndex((message) => message.name === 'ai-cancel');
  assert.notEqual(at, -1, 'the cancel was not delivered');
  const cancel = heard[at];
  const late = heard.filter(
    (message, index) => isContentOf(message, runId) && (index > at || message.version.serial > cancel.serial),
  );
  assert.deepEqual(
    late.map((message) => message.data),
    [],
    'words after the cancel',
  );
}

test('send and stream', async (t) => {
  const alice = await join(t, 'alice', unique());
  const run = await send(alice, 'script: tokens=50 rate=100');
  const lengths = new Set();
  alice.view.on('update', () => run.runId && lengths.add(said(alice, run.runId).length));
  await begun(run);
  await ended(alice, run.runId, 'complete');
  assert.equal(said(alice, run.runId), tokens(50));
  assert.equal(run.status, 'complete');
  assert.equal(alice.view.run(run.runId).clientId, 'alice');
  assert.ok(lengths.size > 3, `the answer came in ${lengths.size} chunks`);
  assert.deepEqual(alice.errors, []);
});

test('a plain text gets an answer that quotes it', async (t) => {
  const alice = await join(t, 'alice', unique());
  const run = await startTurn(alice, 'Where do swallows go?');
  await ended(alice, run.runId, 'complete');
  assert.match(said(alice, run.runId), /Where do swallows go\?/);
});

test('waking the agent is accepted, and twice is once', async (t) => {
  const alice = await join(t, 'alice', unique());
  const run = await send(alice, 'script: tokens=5 rate=100');
  for (const response of await Promise.all([wake(run), wake(run), wake(run, 1)])) {
    assert.ok(response.ok, `the wake-up was answered ${response.status}`);
  }
  await begun(run);
  await ended(alice, run.runId, 'complete');
  const next = await startTurn(alice, 'script: tokens=1');
  await ended(alice, next.runId, 'complete');
  assert.equal(alice.view.runs().length, 2);
});

test('INT-28 cancel mid-stream, then send: cancelled, and the next turn is exact', async (t) => {
  const name = unique();
  const ear = await eavesdrop(t, name);
  const alice = await join(t, 'alice', name);
  const first = await startTurn(alice, ENDLESS);
  await seen(alice, 'some words', () => said(alice, first.runId).length > 20);
  await alice.session.cancel(first.runId);
  const second = await startTurn(alice, 'script: tokens=50 rate=200');
  await ended(alice, first.runId, 'cancelled');
  await ended(alice, second.runId, 'complete');
  const partial = said(alice, first.runId);
  assert.ok(partial.length > 20 && tokens(5000).startsWith(partial), 'the partial answer is kept');
  assert.equal(said(alice, second.runId), tokens(50));
  await ear.hears('the end of the second turn', (heard) => terminals(heard, second.runId).length);
  assertSilentAfterCancel(ear.heard, first.runId);
  assert.equal(terminals(ear.heard, first.runId).length, 1);
  assert.deepEqual(alice.errors, []);
});

prompt('a hung model is cancelled at once', async (t) => {
  const alice = await join(t, 'alice', unique());
  const run = await startTurn(alice, 'script: tokens=20 rate=0 hang_at=10');
  await seen(alice, 'ten words', () => said(alice, run.runId) === tokens(10));
  const asked = performance.now();
  await run.cancel();
  await ended(alice, run.runId, 'cancelled');
  const took = performance.now() - asked;
  assert.equal(said(alice, run.runId), tokens(10));
  quick(took, 1000);
});

test('cancel as soon as the send is acknowledged', async (t) => {
  const name = unique();
  const ear = await eavesdrop(t, name);
  const alice = await join(t, 'alice', name);
  const runs = await Promise.all(
    Array.from({ length: 10 }, async () => {
      const run = await send(alice, ENDLESS);
      await run.cancel();
      return run;
    }),
  );
  await assertAllCancelled(ear, runs.map((run) => run.inputCodecMessageId));
});

test('CAN-4 cancel in the tick of the send', async (t) => {
  const name = unique();
  const ear = await eavesdrop(t, name);
  const alice = await join(t, 'alice', name);
  const channel = alice.client.channels.get(name);
  const inputs = Array.from({ length: 10 }, () => crypto.randomUUID());
  await Promise.all(
    inputs.flatMap((codecMessageId) => [
      alice.view.send({ ...question(ENDLESS), codecMessageId }),
      channel.publish(cancelOf(codecMessageId)),
    ]),
  );
  await assertAllCancelled(ear, inputs);
});

/** The cancel that `run.cancel()` publishes, for a turn no handle exists of yet. */
function cancelOf(codecMessageId) {
  const transport = { 'event-id': crypto.randomUUID(), 'input-codec-message-id': codecMessageId };
  return { name: 'ai-cancel', extras: { ai: { transport } } };
}

/** Every input's turn has exactly one terminal, `cancelled`, and no words after its cancel. */
async function assertAllCancelled(ear, inputs) {
  const byInput = (name, input) =>
    ear.heard.filter((message) => message.name === name && transportHeaders(message)['input-codec-message-id'] === input);
  await ear.hears('a terminal for each turn', () => inputs.every((input) => byInput('ai-run-end', input).length));
  for (const input of inputs) {
    const ends = byInput('ai-run-end', input);
    assert.deepEqual(ends.map((message) => transportHeaders(message)['run-reason']), ['cancelled']);
    const [cancel] = byInput('ai-cancel', input);
    const words = byInput('ai-output', input).filter((message) => transportHeaders(message).stream === 'true' && message.data);
    assert.deepEqual(words.filter((message) => message.version.serial > cancel.serial), []);
  }
}

test('INT-4 INT-5 two turns at once, one cancelled, the other exact', async (t) => {
  const name = unique();
  const ear = await eavesdrop(t, name);
  const alice = await join(t, 'alice', name);
  const [one, two] = await Promise.all([startTurn(alice, ENDLESS), startTurn(alice, 'script: tokens=120 rate=100')]);
  await seen(alice, 'both speak', () => said(alice, one.runId).length > 10 && said(alice, two.runId).length > 10);
  await one.cancel();
  await ended(alice, one.runId, 'cancelled');
  assert.equal(status(alice, two.runId), 'active');
  await ended(alice, two.runId, 'complete');
  assert.equal(said(alice, two.runId), tokens(120));
  await ear.hears('both ends', (heard) => terminals(heard, one.runId).length && terminals(heard, two.runId).length);
  assertSilentAfterCancel(ear.heard, one.runId);
});

test('INT-19 another client on another gateway cancels', async (t) => {
  const name = unique();
  const alice = await join(t, 'alice', name);
  const bob = await join(t, 'bob', name, { gateway: 1 });
  const run = await startTurn(alice, ENDLESS);
  await seen(bob, 'words', () => said(bob, run.runId).length > 10);
  assert.equal(bob.view.run(run.runId).clientId, 'alice');
  await bob.session.cancel(run.runId);
  await Promise.all([ended(alice, run.runId, 'cancelled'), ended(bob, run.runId, 'cancelled')]);
  assert.equal(said(alice, run.runId), said(bob, run.runId));
});

test('SES-11 late joiners in mid-stream see all text so far, and the rest', async (t) => {
  const name = unique();
  const alice = await join(t, 'alice', name);
  const run = await startTurn(alice, 'script: tokens=200 rate=100');
  for (const length of [1, 40, 200]) {
    await seen(alice, `${length} characters`, () => said(alice, run.runId).length >= length);
    const before = said(alice, run.runId);
    const late = await join(t, `late-${length}`, name, { gateway: length });
    await late.view.loadOlder(50);
    await seen(late, 'the text so far', () => said(late, run.runId).length >= before.length);
    assert.ok(tokens(200).startsWith(said(late, run.runId)));
    await Promise.all([late, alice].map((member) => ended(member, run.runId, 'complete')));
    assert.equal(said(late, run.runId), tokens(200));
    assert.deepEqual(transcript(late), transcript(alice));
    if (status(alice, run.runId) !== 'active') break;
  }
});

test('SES-2 HIS-5 the conversation is there after everyone has left', async (t) => {
  const name = unique();
  const alice = await join(t, 'alice', name);
  const complete = await startTurn(alice, 'script: tokens=30 rate=0');
  await ended(alice, complete.runId, 'complete');
  const cancelled = await startTurn(alice, ENDLESS);
  await seen(alice, 'words', () => said(alice, cancelled.runId).length > 10);
  await cancelled.cancel();
  await ended(alice, cancelled.runId, 'cancelled');
  const before = transcript(alice);
  await alice.session.close();
  await closed(alice.client);

  const bob = await join(t, 'bob', name, { gateway: 1 });
  await bob.view.loadOlder(50);
  assert.deepEqual(transcript(bob), before);
  assert.equal(bob.view.run(complete.runId).status, 'complete');
  assert.equal(bob.view.run(cancelled.runId).status, 'cancelled');
  assert.equal(bob.view.hasOlder(), false);
});

test('TRN-11 the turn goes on when its sender leaves', async (t) => {
  const name = unique();
  const bob = await join(t, 'bob', name, { gateway: 1 });
  const alice = await join(t, 'alice', name);
  const run = await send(alice, 'script: tokens=60 rate=100');
  await closed(alice.client);
  await seen(bob, 'the turn', () => bob.view.runs().length === 1);
  const { runId } = bob.view.runs()[0];
  await ended(bob, runId, 'complete');
  assert.equal(said(bob, runId), tokens(60));
  assert.equal(run.inputCodecMessageId, bob.view.getMessages()[0].codecMessageId);
});

test('INT-14 a dropped socket cancels nothing, and no word is lost', async (t) => {
  const alice = await join(t, 'alice', unique());
  const run = await startTurn(alice, 'script: tokens=200 rate=100');
  const { connection } = alice.client;
  for (const length of [20, 200]) {
    await seen(alice, `${length} characters`, () => said(alice, run.runId).length > length);
    const back = new Promise((resolve) => {
      connection.once('disconnected', () => connection.once('connected', resolve));
    });
    connection.connectionManager.activeProtocol.getTransport().disconnect();
    await back;
  }
  await ended(alice, run.runId, 'complete');
  assert.equal(said(alice, run.runId), tokens(200));
  assert.deepEqual(alice.errors, []);
});

test('HIS-1 a long conversation is paged without a gap', async (t) => {
  const name = unique();
  const alice = await join(t, 'alice', name);
  const runs = [];
  for (let n = 1; n <= 40; n += 1) {
    const run = await startTurn(alice, `script: tokens=${n} rate=0`);
    await ended(alice, run.runId, 'complete');
    runs.push(run);
  }
  const bob = await join(t, 'bob', name, { gateway: 1 });
  const pages = [];
  while (bob.view.hasOlder()) pages.unshift(await bob.view.loadOlder(7));
  const read = pages.flat().map(({ message }) => [message.role, textOf(message)]);
  assert.deepEqual(read, transcript(alice));
  assert.deepEqual(transcript(bob), transcript(alice));
  assert.deepEqual(new Set(bob.view.runs().map((run) => run.status)), new Set(['complete']));
  assert.equal(bob.view.runs().length, 40);
});

test('SES-3 clients of two gateways see one order', async (t) => {
  const name = unique();
  const ears = [await eavesdrop(t, name), await eavesdrop(t, name, { gateway: 1 })];
  const alice = await join(t, 'alice', name);
  const bob = await join(t, 'bob', name, { gateway: 1 });
  const runs = await Promise.all(
    [alice, bob, alice, bob].map((member, index) => startTurn(member, `script: tokens=${40 + index} rate=100`)),
  );
  for (const member of [alice, bob]) {
    await Promise.all(runs.map((run) => ended(member, run.runId, 'complete')));
    runs.forEach((run, index) => assert.equal(said(member, run.runId), tokens(40 + index)));
  }
  assert.deepEqual(transcript(alice), transcript(bob));
  const orders = await Promise.all(
    ears.map(async (ear) => {
      await ear.hears('all ends', (heard) => runs.every((run) => terminals(heard, run.runId).length === 1));
      return ear.heard.map((message) => message.version?.serial ?? message.serial);
    }),
  );
  assert.deepEqual(orders[0], [...orders[0]].sort());
  assert.deepEqual(orders[0], orders[1]);
});

test('INT-7 open turns are known to all', async (t) => {
  const name = unique();
  const alice = await join(t, 'alice', name);
  const bob = await join(t, 'bob', name, { gateway: 1 });
  const open = (member) => member.view.runs().filter((run) => run.status === 'active').map((run) => run.clientId);
  assert.deepEqual([open(alice), open(bob)], [[], []]);
  const run = await startTurn(alice, ENDLESS);
  for (const member of [alice, bob]) {
    await seen(member, 'one open turn', () => open(member).length === 1);
    assert.deepEqual(open(member), ['alice']);
  }
  await run.cancel();
  for (const member of [alice, bob]) await seen(member, 'no open turn', () => open(member).length === 0);
});

test('regenerate: the new answer takes the place of the old, which stays selectable', async (t) => {
  const name = unique();
  const alice = await join(t, 'alice', name);
  const first = await startTurn(alice, 'script: tokens=10 rate=0');
  await ended(alice, first.runId, 'complete');
  const [, answer] = alice.view.getMessages();
  const again = await alice.view.regenerate(answer.codecMessageId);
  await begun(again);
  await ended(alice, again.runId, 'complete');
  assert.notEqual(again.runId, first.runId);
  assert.equal(said(alice, again.runId), tokens(10));
  assert.equal(alice.view.getMessages().length, 2);
  const shown = alice.view.getMessages()[1];
  const branch = alice.view.branchSelection(shown.codecMessageId);
  assert.deepEqual([branch.siblings.length, branch.index], [2, 1]);

  const bob = await join(t, 'bob', name, { gateway: 1 });
  await bob.view.loadOlder(50);
  assert.equal(bob.view.getMessages()[1].codecMessageId, shown.codecMessageId);
});

test('edit: the conversation goes on from the new question', async (t) => {
  const alice = await join(t, 'alice', unique());
  const first = await startTurn(alice, 'script: tokens=10 rate=0');
  await ended(alice, first.runId, 'complete');
  const [asked] = alice.view.getMessages();
  const edited = await alice.view.edit(asked.codecMessageId, question('script: tokens=20 rate=0'));
  await begun(edited);
  await ended(alice, edited.runId, 'complete');
  assert.deepEqual(transcript(alice), [
    ['user', 'script: tokens=20 rate=0'],
    ['assistant', tokens(20)],
  ]);
  const branch = alice.view.branchSelection(alice.view.getMessages()[0].codecMessageId);
  assert.deepEqual([branch.siblings.length, branch.index], [2, 1]);
});

test('INT-25 the model is given the conversation, interrupted answers included', async (t) => {
  const alice = await join(t, 'alice', unique());
  const first = await startTurn(alice, ENDLESS);
  await seen(alice, 'words', () => said(alice, first.runId).length > 20);
  await first.cancel();
  await ended(alice, first.runId, 'cancelled');
  const partial = said(alice, first.runId).trim();
  const second = await startTurn(alice, 'script: echo_context=1');
  await ended(alice, second.runId, 'complete');
  const context = said(alice, second.runId);
  assert.ok(context.includes(ENDLESS), 'the first question is in the context');
  assert.ok(context.includes(partial), 'the partial answer is in the context');
  assert.doesNotThrow(() => JSON.parse(context));
});

test('a failing model ends its turn with an error that clients can read', async (t) => {
  const alice = await join(t, 'alice', unique());
  const run = await startTurn(alice, 'script: tokens=10 rate=0 fail_at=3 always=1');
  await ended(alice, run.runId, 'error');
  assert.ok(run.error.code > 0 && run.error.message.length > 0);
  const next = await startTurn(alice, 'script: tokens=3 rate=0');
  await ended(alice, next.runId, 'complete');
});
