// An agent written with the JS SDK, in a namespace bound to no agent of ours: the gateway only carries messages.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Invocation } from '@ably/ai-transport';
import { createAgentSession } from '@ably/ai-transport/vercel';
import * as Ably from 'ably';
import { connect, ended, join, said, seen, send, tokens, transcript, unique } from './support.mjs';

async function agentOn(t, channelName, gateway = 0) {
  const client = connect(t, 'js-agent', {}, gateway);
  const session = createAgentSession({ client, channelName });
  await session.connect();
  return session;
}

/** The chunks of an answer of `n` numbered words; `pause` ms between them. */
async function* answer(n, pause = 0, signal) {
  yield { type: 'start', messageId: crypto.randomUUID() };
  yield { type: 'start-step' };
  yield { type: 'text-start', id: 'text' };
  for (let index = 0; index < n && !signal?.aborted; index += 1) {
    if (pause) await new Promise((resolve) => setTimeout(resolve, pause));
    yield { type: 'text-delta', id: 'text', delta: `${index} ` };
  }
  yield { type: 'text-end', id: 'text' };
  yield { type: 'finish-step' };
  yield { type: 'finish', finishReason: 'stop' };
}

/** Open the run that answers `sent`, as an agent's HTTP endpoint would. */
async function open(agent, sent) {
  const run = agent.createRun(Invocation.fromJSON(sent.toInvocation().toJSON()));
  await run.start();
  return run;
}

test('a JS agent answers a JS client, and no one else does', async (t) => {
  const name = unique('plain');
  const agent = await agentOn(t, name);
  const alice = await join(t, 'alice', name);
  const bob = await join(t, 'bob', name, { gateway: 1 });
  const sent = await send(alice, 'Hello');
  const run = await open(agent, sent);
  const { reason } = await run.pipe(answer(40, 2));
  assert.equal(reason, 'complete');
  await run.end({ reason });
  for (const member of [alice, bob]) {
    await ended(member, run.runId, 'complete');
    assert.equal(said(member, run.runId), tokens(40));
    assert.equal(member.view.runs().length, 1);
  }
  const late = await join(t, 'late', name, { gateway: 1 });
  await late.view.loadOlder(50);
  assert.deepEqual(transcript(late), [
    ['user', 'Hello'],
    ['assistant', tokens(40)],
  ]);
  assert.equal(late.view.run(run.runId).status, 'complete');
});

test('a cancel reaches the JS agent', async (t) => {
  const name = unique('plain');
  const agent = await agentOn(t, name, 1);
  const alice = await join(t, 'alice', name);
  const sent = await send(alice, 'Count');
  const run = await open(agent, sent);
  const piped = run.pipe(answer(10_000, 5, run.abortSignal));
  await seen(alice, 'words', () => said(alice, run.runId).length > 10);
  await sent.cancel();
  const { reason } = await piped;
  assert.equal(reason, 'cancelled');
  await run.end({ reason });
  await ended(alice, run.runId, 'cancelled');
  assert.ok(tokens(10_000).startsWith(said(alice, run.runId)));
});

test('late joiner of a JS agent in mid-stream', async (t) => {
  const name = unique('plain');
  const agent = await agentOn(t, name);
  const alice = await join(t, 'alice', name);
  const run = await open(agent, await send(alice, 'Count'));
  const piped = run.pipe(answer(150, 5));
  await seen(alice, 'words', () => said(alice, run.runId).length > 50);
  const late = await join(t, 'late', name, { gateway: 1 });
  await late.view.loadOlder(50);
  assert.ok(said(late, run.runId).length > 50);
  await run.end({ reason: (await piped).reason });
  await ended(late, run.runId, 'complete');
  assert.equal(said(late, run.runId), tokens(150));
});

test('the JS agent reads the conversation so far', async (t) => {
  const name = unique('plain');
  const alice = await join(t, 'alice', name);
  const first = await agentOn(t, name);
  const run = await open(first, await send(alice, 'One'));
  await run.pipe(answer(3));
  await run.end({ reason: 'complete' });
  await ended(alice, run.runId, 'complete');

  const second = await agentOn(t, name, 1);
  const next = second.createRun(Invocation.fromJSON((await send(alice, 'Two')).toInvocation().toJSON()));
  await next.view.loadOlder(50);
  await next.start();
  const read = next.view.getMessages().map(({ message }) => message.parts.find((part) => part.type === 'text').text);
  assert.deepEqual(read, ['One', tokens(3), 'Two']);
  await next.end({ reason: 'complete' });
});

test('an error of the JS agent reaches the client', async (t) => {
  const name = unique('plain');
  const agent = await agentOn(t, name);
  const alice = await join(t, 'alice', name);
  const run = await open(agent, await send(alice, 'Fail'));
  await run.end({ reason: 'error', error: new Ably.ErrorInfo('the model is out of tokens', 50123, 501) });
  await ended(alice, run.runId, 'error');
  const { error } = alice.view.run(run.runId);
  assert.deepEqual([error.code, error.message], [50123, 'the model is out of tokens']);
});

test('in a namespace of our workers a JS agent is refused, and shown the remedy; the turn is answered once', async (t) => {
  const name = unique('chat');
  const agent = await agentOn(t, name);
  const alice = await join(t, 'alice', name);
  const sent = await send(alice, 'script: tokens=20 rate=100');
  await assert.rejects(open(agent, sent), (error) => {
    const cause = error.cause ?? error;
    assert.equal(cause.code, 40160);
    assert.match(cause.message, /namespace without `agent`/);
    return true;
  });
  const { runId } = await sent.started.then(() => sent);
  await ended(alice, runId, 'complete');
  assert.equal(said(alice, runId), tokens(20));
  assert.equal(alice.view.runs().length, 1);
});
