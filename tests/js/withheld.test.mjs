// What a client sees from whom its namespace withholds reasoning and tools: a conversation without them, nothing dangling.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closed, ended, join, seen, startTurn, status, textOf, tokens, unique } from './support.mjs';

const RESTRICTED = { extra: { key: process.env.RESTRICTED_KEY } };
const FORBIDDEN = /"type":"(reasoning|tool-|dynamic-tool)|toolCallId|\br\d+ /;

function answers(member) {
  return member.view
    .getMessages()
    .map(({ message }) => message)
    .filter(({ role }) => role === 'assistant');
}

function assertPlain(member, count) {
  assert.equal(answers(member).map(textOf).join(''), tokens(count));
  assert.doesNotMatch(JSON.stringify(answers(member)), FORBIDDEN);
  assert.deepEqual(member.errors, []);
}

test('live, joined in the middle, and after a reload', async (t) => {
  const alice = await join(t, 'alice', unique('veiled'));
  const bob = await join(t, 'bob', alice.channelName, RESTRICTED);
  const run = await startTurn(alice, 'script: tokens=20 rate=100 reasoning=30 tool=server');
  await seen(alice, 'reasoning', () => /\br3 /.test(JSON.stringify(answers(alice))));
  const late = await join(t, 'carol', alice.channelName, { ...RESTRICTED, gateway: 1 });
  for (const member of [alice, bob, late]) await ended(member, run.runId, 'complete');
  await late.view.loadOlder(100);
  const reloaded = await join(t, 'dave', alice.channelName, RESTRICTED);
  await reloaded.view.loadOlder(100);
  for (const member of [bob, late, reloaded]) {
    assertPlain(member, 20);
    assert.equal(status(member, run.runId), 'complete');
  }
  assert.match(JSON.stringify(answers(alice)), FORBIDDEN);
});

test('a turn that waits for a tool is seen to wait, and to be cancelled', async (t) => {
  const alice = await join(t, 'alice', unique('veiled'));
  const bob = await join(t, 'bob', alice.channelName, RESTRICTED);
  const run = await startTurn(alice, 'script: tokens=3 tool=client');
  await seen(bob, 'the turn waiting', () => status(bob, run.runId) === 'suspended');
  await alice.session.cancel(run.runId);
  await ended(bob, run.runId, 'cancelled');
  assertPlain(bob, 0);
  await closed(bob.client);
});
