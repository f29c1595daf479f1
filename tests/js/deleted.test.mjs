// A question that its sender has deleted: the conversation after it is there for who joins later.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ended, join, seen, startTurn, textOf, transcript, unique } from './support.mjs';

async function say(member, text) {
  const run = await startTurn(member, text);
  await ended(member, run.runId, 'complete');
}

async function late(t, clientId, channelName) {
  const member = await join(t, clientId, channelName, { gateway: 1 });
  await member.view.loadOlder(100);
  return member;
}

test('what came after a deleted question is shown, and goes on', async (t) => {
  const alice = await join(t, 'alice', unique());
  for (const text of ['first', 'script: tokens=3', 'third']) await say(alice, text);
  const watching = transcript(alice);
  assert.equal(watching.length, 6);
  const channel = alice.client.channels.get(alice.channelName);
  const { items } = await channel.history({ untilAttach: false });
  const questions = items.filter(({ name }) => name === 'ai-input').reverse();
  const gone = new Promise((resolve) => channel.subscribe((message) => message.action === 'message.delete' && resolve()));
  await channel.deleteMessage({ serial: questions[1].serial, data: '' });
  await gone;
  assert.equal(transcript(alice).length, 6);

  const bob = await late(t, 'bob', alice.channelName);
  const joined = transcript(bob);
  assert.deepEqual(joined, watching.map((one, at) => (at === 2 ? ['user', ''] : one)));
  await say(bob, 'script: echo_context=1');
  await seen(alice, 'the next turn', () => transcript(alice).length === 8);
  const given = JSON.parse(textOf(bob.view.getMessages().at(-1).message));
  assert.equal(given.length, 6);
  assert.doesNotMatch(JSON.stringify(given), /tokens=3/);
  assert.equal(transcript(await late(t, 'carol', alice.channelName)).length, 8);
});

test('plain history tells a deletion as it is', async (t) => {
  const alice = await join(t, 'alice', unique());
  await say(alice, 'question');
  const channel = alice.client.channels.get(alice.channelName);
  const { items } = await channel.history();
  await channel.deleteMessage({ serial: items.at(-1).serial });
  const after = await channel.history();
  assert.equal(after.items.at(-1).action, 'message.delete');
});
