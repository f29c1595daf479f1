// Agents of the JS SDK whose work goes on in another process: adopted runs, steps, `withAgentSession`, and the Temporal
// entry points. Temporal's own modules are stood in for: there is no Temporal server.
import assert from 'node:assert/strict';
import { register } from 'node:module';
import { test } from 'node:test';
import { Invocation } from '@ably/ai-transport';
import { createAgentSession, createUIMessageCodec, withAgentSession } from '@ably/ai-transport/vercel';
import * as Ably from 'ably';
import { closed, connect, ended, join, options, said, seen, send, status, terminals, eavesdrop, tokens, transcript, unique } from './support.mjs';

const MODULES = {
  '@temporalio/activity': 'export const Context = { current: () => ({ info: { activityId: "7" }, heartbeat() {} }) };',
  '@temporalio/workflow': `
    export const proxyActivities = () => globalThis.activities;
    export const workflowInfo = () => ({ workflowId: globalThis.workflowId });
    export const CancellationScope = { nonCancellable: (work) => work() };`,
};
const HOOKS = `
  const modules = ${JSON.stringify(MODULES)};
  export async function resolve(name, context, next) {
    return name in modules ? { url: 'data:text/javascript,' + encodeURIComponent(modules[name]), shortCircuit: true } : next(name, context);
  }`;
register(`data:text/javascript,${encodeURIComponent(HOOKS)}`);
const { createAblyTransportPlugin, stepIdFor } = await import('@ably/ai-transport/temporal');
const { openRun, withRun } = await import('@ably/ai-transport/temporal/workflow');

async function agentOn(t, channelName, gateway = 0) {
  const session = createAgentSession({ client: connect(t, 'js-agent', {}, gateway), channelName });
  await session.connect();
  return session;
}

/** The chunks of an answer of the words `from` to `to`; it breaks off after `breakAt`. */
async function* words(from, to, breakAt = Infinity) {
  yield { type: 'start', messageId: `message-${from}` };
  yield { type: 'start-step' };
  yield { type: 'text-start', id: 'text' };
  for (let index = from; index < to; index += 1) {
    if (index === breakAt) throw new Error('the process died');
    yield { type: 'text-delta', id: 'text', delta: `${index} ` };
  }
  yield { type: 'text-end', id: 'text' };
  yield { type: 'finish-step' };
  yield { type: 'finish', finishReason: 'stop' };
}

async function asked(t) {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const me = await join(t, 'alice', name);
  const sent = await send(me, 'Count');
  const data = sent.toInvocation().toJSON();
  return { name, me, ear, data, invocation: Invocation.fromJSON(data) };
}

test('createStep: a run of two steps, each with its output', async (t) => {
  const { name, me, ear, invocation } = await asked(t);
  const run = (await agentOn(t, name)).createRun(invocation);
  // Its input was sent before the agent came.
  await run.view.loadOlder(50);
  await run.start();
  for (const [from, to] of [[0, 5], [5, 8]]) {
    const step = run.createStep();
    await step.start();
    assert.equal((await step.pipe(words(from, to))).reason, 'complete');
    await step.end();
  }
  await run.end({ reason: 'complete' });
  await ended(me, run.runId, 'complete');
  assert.equal(said(me, run.runId), tokens(8));
  await ear.hears('the end', (heard) => terminals(heard, run.runId).length === 1);
});

test('adoptRun: another process, on another gateway, does a step anew and ends the run', async (t) => {
  const { name, me, ear, invocation } = await asked(t);
  const first = await agentOn(t, name);
  const run = first.createRun(invocation);
  await run.view.loadOlder(50);
  await run.start();
  const step = run.createStep({ stepId: 'step-1' });
  await step.start();
  const { reason } = await step.pipe(words(0, 10, 4));
  assert.equal(reason, 'error');
  await first.detach();
  const second = await agentOn(t, name, 1);
  const adopted = second.adoptRun(invocation, { runId: run.runId, invocationId: run.invocationId });
  await adopted.load();
  const again = adopted.createStep({ stepId: 'step-1' });
  await again.start();
  await again.pipe(words(0, 6));
  await again.end();
  await adopted.end({ reason: 'complete' });
  await ended(me, run.runId, 'complete');
  assert.equal(said(me, run.runId), tokens(6));
  await ear.hears('the end', (heard) => terminals(heard, run.runId).length === 1);
  const late = await join(t, 'late', name, { gateway: 1 });
  await late.view.loadOlder(50);
  assert.deepEqual(transcript(late), [['user', 'Count'], ['assistant', tokens(6)]]);
});

test('suspend: the run waits, and is not adopted before it is resumed', async (t) => {
  const { name, me, invocation } = await asked(t);
  const first = await agentOn(t, name);
  const run = first.createRun(invocation);
  await run.view.loadOlder(50);
  await run.start();
  await run.pipe(words(0, 3));
  await run.suspend();
  await seen(me, 'suspended', () => status(me, run.runId) === 'suspended');
  await first.detach();
  const adopted = (await agentOn(t, name, 1)).adoptRun(invocation, { runId: run.runId, invocationId: run.invocationId });
  await assert.rejects(adopted.load(), { code: 40003 });
  assert.deepEqual([said(me, run.runId), status(me, run.runId)], [tokens(3), 'suspended']);
});

test('withAgentSession: connected for the body, detached after it, and its result passed on', async (t) => {
  const { me, data } = await asked(t);
  const client = connect(t, 'js-agent', {}, 1);
  const found = await withAgentSession({ client, invocation: data }, async ({ session, invocation }) => {
    const run = session.createRun(invocation);
    const resumePoint = await run.view.loadUntil(() => false);
    await run.start();
    const { reason } = await run.pipe(words(0, 4));
    await run.end({ reason });
    return { runId: run.runId, messages: resumePoint.length };
  });
  assert.equal(found.messages, 1);
  await ended(me, found.runId, 'complete');
  assert.equal(said(me, found.runId), tokens(4));
});

/** The plugin's activities, each with a client of its own, as in processes of their own. */
function activities(t) {
  let count = 0;
  const createClient = () => {
    const client = new Ably.Realtime({ ...options({}, (count += 1)), clientId: 'js-agent' });
    t.after(() => closed(client));
    return client;
  };
  const plugin = createAblyTransportPlugin({ codec: createUIMessageCodec(), createClient });
  return plugin.configureWorker({ activities: { mine: () => {} } }).activities;
}

test('Temporal: the activities open, suspend, end and clean up a run, each on a client of its own', async (t) => {
  const work = activities(t);
  assert.deepEqual(Object.keys(work).sort(), ['cleanupRun', 'endRun', 'mine', 'openRun', 'suspendRun']);
  const { name, me, data, invocation } = await asked(t);
  const ids = await work.openRun({ invocation: data, invocationId: 'workflow-1' });
  assert.equal(ids.invocationId, 'workflow-1');
  assert.equal(stepIdFor(ids.invocationId), 'workflow-1-7');
  const run = (await agentOn(t, name)).adoptRun(invocation, ids);
  await run.load();
  const step = run.createStep({ stepId: stepIdFor(ids.invocationId) });
  await step.start();
  await step.pipe(words(0, 5));
  await step.end();
  await work.endRun({ ids, invocation: data, reason: 'complete' });
  await ended(me, ids.runId, 'complete');
  assert.equal(said(me, ids.runId), tokens(5));
  const waiting = await asked(t);
  const suspended = await work.openRun({ invocation: waiting.data, invocationId: 'workflow-5' });
  await work.suspendRun({ ids: suspended, invocation: waiting.data });
  await seen(waiting.me, 'suspended', () => status(waiting.me, suspended.runId) === 'suspended');
  const other = await asked(t);
  const failed = await work.openRun({ invocation: other.data, invocationId: 'workflow-2' });
  await work.cleanupRun({ ids: failed, invocation: other.data, errorMessage: 'gave up' });
  await ended(other.me, failed.runId, 'error');
});

test('Temporal: a workflow opens its run and ends it, and one that fails cleans up', async (t) => {
  globalThis.activities = activities(t);
  const good = await asked(t);
  globalThis.workflowId = 'workflow-3';
  const handle = await openRun(good.data);
  await handle.end({ reason: 'complete' });
  await ended(good.me, handle.ids.runId, 'complete');
  const bad = await asked(t);
  globalThis.workflowId = 'workflow-4';
  let runId;
  const failing = withRun(bad.data, async (run) => {
    runId = run.ids.runId;
    throw new Error('no model');
  });
  await assert.rejects(failing, /no model/);
  await ended(bad.me, runId, 'error');
});
