// Conversations of a JS agent, taken over from one deployment into another (docs/migrating.md).
//
// PHASE=fill makes them and writes what their readers see to FILE; PHASE=check compares, and goes on.
// DESK is answered by workers in the second deployment, PLAIN by a JS agent in both.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Invocation } from '@ably/ai-transport';
import { createAgentSession } from '@ably/ai-transport/vercel';
import { connect, ended, join, question, said, seen, send, startTurn, tokens } from './support.mjs';

const { PHASE, FILE, DESK, PLAIN } = process.env;

async function agentOn(t, channelName) {
  const session = createAgentSession({ client: connect(t, 'js-agent'), channelName });
  await session.connect();
  return session;
}

async function* answer(n, signal) {
  yield { type: 'start', messageId: crypto.randomUUID() };
  yield { type: 'start-step' };
  yield { type: 'text-start', id: 'text' };
  for (let index = 0; index < n && !signal?.aborted; index += 1) {
    if (signal) await new Promise((resolve) => setTimeout(resolve, 2));
    yield { type: 'text-delta', id: 'text', delta: `${index} ` };
  }
  yield { type: 'text-end', id: 'text' };
  yield { type: 'finish-step' };
  yield { type: 'finish', finishReason: 'stop' };
}

async function answered(agent, alice, sent, n) {
  const run = agent.createRun(Invocation.fromJSON(sent.toInvocation().toJSON()));
  await run.start();
  await run.end({ reason: (await run.pipe(answer(n))).reason });
  await ended(alice, run.runId, 'complete');
  assert.equal(said(alice, run.runId), tokens(n));
}

/** What a reader sees: the messages with their ids, how each turn ended, and the branches there are. */
function reading({ view }) {
  const messages = view.getMessages();
  return {
    messages: messages.map(({ codecMessageId, message }) => [codecMessageId, message.id, message.role, message.parts]),
    statuses: messages.map(({ codecMessageId }) => view.runOf(codecMessageId)?.status),
    branches: messages.map(({ codecMessageId }) => {
      const { siblings, index } = view.branchSelection(codecMessageId);
      return [siblings.length, index];
    }),
  };
}

async function converse(t, channelName) {
  const agent = await agentOn(t, channelName);
  const alice = await join(t, 'alice', channelName);
  await answered(agent, alice, await send(alice, 'One'), 30);
  const [asked] = alice.view.getMessages();
  await answered(agent, alice, await alice.view.edit(asked.codecMessageId, question('One, again')), 20);

  const sent = await send(alice, 'Count');
  const run = agent.createRun(Invocation.fromJSON(sent.toInvocation().toJSON()));
  await run.start();
  const piped = run.pipe(answer(100_000, run.abortSignal));
  await seen(alice, 'words', () => said(alice, run.runId).length > 10);
  await sent.cancel();
  await run.end({ reason: (await piped).reason });
  await ended(alice, run.runId, 'cancelled');
  await answered(agent, alice, await send(alice, 'Three'), 10);
  return { agent, alice };
}

async function readLate(t, clientId, channelName) {
  const reader = await join(t, clientId, channelName);
  await reader.view.loadOlder(100);
  return reader;
}

test('conversations at the source', { skip: PHASE !== 'fill' && 'the other phase' }, async (t) => {
  const { agent, alice } = await converse(t, DESK);
  await converse(t, PLAIN);
  const desk = reading(await readLate(t, 'bob', DESK));
  const plain = reading(await readLate(t, 'bob', PLAIN));
  assert.equal(desk.messages.length, 6);
  assert.deepEqual(desk.branches[0], [2, 1]);
  // A turn that its agent never ends.
  const left = agent.createRun(Invocation.fromJSON((await send(alice, 'Left open')).toInvocation().toJSON()));
  await left.start();
  await writeFile(FILE, JSON.stringify({ desk, plain, left: left.runId }));
});

test('the same conversations here, and they go on', { skip: PHASE !== 'check' && 'the other phase' }, async (t) => {
  const before = JSON.parse(await readFile(FILE, 'utf8'));
  const alice = await readLate(t, 'alice', DESK);
  const desk = reading(alice);
  for (const part of Object.keys(desk)) assert.deepEqual(desk[part].slice(0, 6), before.desk[part], part);
  assert.equal(alice.view.run(before.left).status, 'cancelled');

  const plain = await readLate(t, 'alice', PLAIN);
  assert.deepEqual(reading(plain), before.plain);
  const agent = await agentOn(t, PLAIN);
  const next = agent.createRun(Invocation.fromJSON((await send(plain, 'Four')).toInvocation().toJSON()));
  await next.view.loadOlder(100);
  await next.start();
  // The SDK's agent leaves a cancelled turn and its question out.
  const read = next.view.getMessages().map(({ message }) => message.parts.find((part) => part.type === 'text').text);
  assert.deepEqual(read, ['One, again', tokens(20), 'Three', tokens(10), 'Four']);
  await next.pipe(answer(5));
  await next.end({ reason: 'complete' });

  const run = await startTurn(alice, 'script: echo_context=1');
  await ended(alice, run.runId, 'complete');
  const context = said(alice, run.runId);
  for (const text of ['One, again', tokens(20).trim(), 'Count', 'Three', tokens(10).trim(), 'Left open']) {
    assert.ok(context.includes(text), `the model reads ${text}`);
  }
  assert.ok(!context.includes(tokens(30).trim()), 'the branch that was left is not in the context');
});
