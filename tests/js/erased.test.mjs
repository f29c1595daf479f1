// An operator erases sessions while the unmodified SDKs are attached to them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KEY, PORTS, connect, ended, join, rest, seen, startTurn, transcript, unique } from './support.mjs';

const operate = async (path, body) => {
  const answer = await fetch(`http://127.0.0.1:${PORTS[0]}/v1/operator/${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Basic ${btoa(KEY)}` },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 200, await answer.clone().text());
  return answer.json();
};

test('the channel of an erased session fails with the reason, and stays so', async (t) => {
  const name = unique('plain');
  const channel = connect(t, 'alice').channels.get(name);
  await channel.presence.enter('here');
  await channel.publish('n', 'said');
  const failed = channel.whenState('failed');
  await operate(`sessions/${encodeURIComponent(name)}/erase`, { dryRun: false });
  await failed;
  assert.equal(channel.errorReason.code, 104019);
  await assert.rejects(channel.attach(), { code: 104019 });
  await assert.rejects(connect(t, 'bob', {}, 1).channels.get(name).publish('n', 'again'), { code: 104019 });
  await assert.rejects(rest().channels.get(name).publish('n', 'again'), { code: 104019 });
  assert.deepEqual((await rest().channels.get(name).history()).items, []);
});

test('a person who is erased leaves a conversation of several; the others go on', async (t) => {
  const name = unique();
  const [alice, bob] = [await join(t, 'alice', name), await join(t, 'bob', name, { gateway: 1 })];
  for (const [member, text] of [[alice, 'of-alice'], [bob, 'of-bob']]) {
    const run = await startTurn(member, `script: say=${text}`);
    await ended(member, run.runId, 'complete');
    await seen(bob, text, () => transcript(bob).some(([, shown]) => shown === text));
  }
  const channel = bob.client.channels.get(name);
  const gone = new Promise((resolve) => channel.subscribe((message) => message.action === 'message.delete' && resolve(message)));
  const done = await operate('people/alice/erase', { sessions: [name] });
  assert.equal(done.redacted[name] > 0, true);
  const { clientId, data } = await gone;
  assert.deepEqual([clientId, data], [undefined, undefined]);

  const late = await join(t, 'carol', name);
  await late.view.loadOlder(100);
  assert.deepEqual(transcript(late), [['user', 'script: say=of-bob'], ['assistant', 'of-bob']]);
  const run = await startTurn(bob, 'script: say=on-we-go');
  await ended(bob, run.runId, 'complete');
  await seen(late, 'the next turn', () => transcript(late).length === 4);
  assert.deepEqual(bob.errors, []);
});
