// Conversations stored in a database, joined by the unmodified SDK with the live session (HYD-2, HYD-3, HYD-4, HYD-8).
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Invocation } from '@ably/ai-transport';
import { useMessagesWithSeed } from '@ably/ai-transport/react';
import { createAgentSession } from '@ably/ai-transport/vercel';
import { act, createElement as h } from 'react';
import { create } from 'react-test-renderer';
import { connect, ended, join, question, said, seen, startTurn, textOf, tokens, unique } from './support.mjs';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
// React says once that its test renderer is out of fashion.
console.error = () => {};

const TURNS = 6;
const LAGS = [0, 1, 5];
const STREAMED = 400;

const idsOf = (messages) => messages.map(({ message }) => message.id);

/** A conversation of some turns; its messages as an application would have stored them. */
async function talked(t, name, turns = TURNS) {
  const sender = await join(t, 'alice', name);
  for (let n = 1; n <= turns; n += 1) {
    const run = await sender.view.send(question(`script: tokens=${n}`, `row-${n}`));
    await run.started;
    await ended(sender, run.runId, 'complete');
  }
  return { sender, stored: sender.view.getMessages().map(({ message }) => message) };
}

test('HYD-2, HYD-8: seed and live tail, behind by 0, 1 and 5 turns', async (t) => {
  const name = unique();
  const { sender, stored } = await talked(t, name);
  assert.deepEqual(stored.filter(({ role }) => role === 'user').map(({ id }) => id), ['row-1', 'row-2', 'row-3', 'row-4', 'row-5', 'row-6']);
  const live = await startTurn(sender, `script: tokens=${STREAMED} rate=200`);
  for (const lag of LAGS) {
    const seed = stored.slice(0, stored.length - 2 * lag);
    const reader = await join(t, `reader-${lag}`, name, { gateway: 1 });
    await reader.view.loadUntil(({ message }) => message.id === seed.at(-1).id);
    await ended(reader, live.runId, 'complete');
    const composed = [...seed.map(({ id }) => id), ...idsOf(reader.view.getMessages())];
    await ended(sender, live.runId, 'complete');
    assert.deepEqual(composed, idsOf(sender.view.getMessages()), `behind by ${lag}`);
    assert.equal(said(reader, live.runId), tokens(STREAMED));
  }
});

test('HYD-2: the React hook shows stored messages and a turn that is running', async (t) => {
  const name = unique();
  const { sender, stored } = await talked(t, name, 3);
  const seed = stored.slice(0, 4);
  const live = await startTurn(sender, 'script: tokens=100 rate=100');
  const reader = await join(t, 'bob', name, { gateway: 1 });
  let shown = [];
  function Conversation() {
    shown = useMessagesWithSeed({ view: reader.view, seed, getMessageId: ({ id }) => id });
    return null;
  }
  let root;
  await act(async () => {
    root = create(h(Conversation));
  });
  await act(async () => {
    await ended(reader, live.runId, 'complete');
    await seen(reader, 'the answer', () => said(reader, live.runId) === tokens(100));
  });
  await ended(sender, live.runId, 'complete');
  const whole = sender.view.getMessages().map(({ message }) => [message.id, textOf(message)]);
  assert.deepEqual(shown.map((message) => [message.id, textOf(message)]), whole);
  await act(async () => root.unmount());
});

test('HYD-3: an empty store is the whole history', async (t) => {
  const name = unique();
  const { stored } = await talked(t, name, 3);
  const reader = await join(t, 'bob', name);
  const tail = await reader.view.loadUntil(() => false);
  assert.deepEqual(idsOf(tail), stored.map(({ id }) => id));
});

test('HYD-4: an agent of the SDK hydrates alike', async (t) => {
  const name = unique('plain');
  const client = connect(t, 'js-agent');
  const agent = createAgentSession({ client, channelName: name });
  await agent.connect();
  const sender = await join(t, 'alice', name);
  const answer = async (text, stored) => {
    const sent = await sender.view.send(question(text));
    const run = agent.createRun(Invocation.fromJSON(sent.toInvocation().toJSON()));
    await run.start();
    const tail = stored && (await run.view.loadUntil(({ message }) => message.id === stored.at(-1).id));
    const { reason } = await run.pipe(spoken(`answer to ${text}`));
    await run.end({ reason });
    await ended(sender, run.runId, 'complete');
    return tail;
  };
  for (const text of ['one', 'two', 'three']) await answer(text);
  const stored = sender.view.getMessages().map(({ message }) => message).slice(0, 4);
  const tail = await answer('four', stored);
  assert.deepEqual(tail.map(({ message }) => textOf(message)), ['three', 'answer to three', 'four']);
});

async function* spoken(text) {
  yield { type: 'start', messageId: crypto.randomUUID() };
  yield { type: 'text-start', id: 'text' };
  yield { type: 'text-delta', id: 'text', delta: text };
  yield { type: 'text-end', id: 'text' };
  yield { type: 'finish', finishReason: 'stop' };
}
