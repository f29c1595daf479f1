// AG-UI at /v1/agui: the published clients of AG-UI (1.0 and 0.0.59), CopilotKit's core and TanStack AI's client.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EventSchemas } from '@ag-ui/core/schemas';
import { CopilotKitCore } from '@copilotkit/core';
import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client';
import { KEY, PORTS, tokens as numbers, unique } from './support.mjs';

const CLIENTS = { '1.0.0': await import('@ag-ui/client'), '0.0.59': await import('agui-0059') };
const AUTH = { authorization: `Basic ${Buffer.from(KEY).toString('base64')}` };
const as = (clientId) => ({ ...AUTH, 'x-ably-clientid': Buffer.from(clientId).toString('base64') });
const url = (gateway = 0) => `http://127.0.0.1:${PORTS[gateway % PORTS.length]}/v1/agui`;
const JSON_TYPE = { 'content-type': 'application/json' };
const CONNECTING = Object.fromEntries(
  Object.entries(CLIENTS).map(([version, { HttpAgent }]) => {
    class Connecting extends HttpAgent {
      connect(input) {
        return new HttpAgent({ url: `${this.url}/connect`, headers: this.headers }).run(input);
      }
    }
    return [version, Connecting];
  }),
);

/** An agent of the real client; `events` are all that its subscriber was given. */
function agent(version, threadId, { gateway = 0, clientId = 'user-1', messages = [] } = {}) {
  const made = new CONNECTING[version]({ url: url(gateway), threadId, headers: as(clientId), initialMessages: messages });
  const events = [];
  made.subscribe({ onEvent: ({ event }) => void events.push(event) });
  return Object.assign(made, { events });
}

const ask = (made, text) => made.addMessage({ id: crypto.randomUUID(), role: 'user', content: text });
const textOf = (made) => made.messages.filter(({ role }) => role === 'assistant').map(({ content }) => content ?? '').join('');
const types = (made) => made.events.map(({ type }) => type);
const last = (made) => made.events.at(-1);

function input(threadId, runId, text, extra = {}) {
  return {
    threadId,
    runId,
    protocolVersion: '1.0',
    state: {},
    messages: text === null ? [] : [{ id: `m-${runId}`, role: 'user', content: text }],
    tools: [],
    context: [],
    forwardedProps: {},
    ...extra,
  };
}

const post = (path, body, { gateway = 0, clientId = 'user-1', headers = {}, ...request } = {}) =>
  fetch(`${url(gateway)}${path}`, {
    method: 'POST',
    headers: { ...as(clientId), ...JSON_TYPE, ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...request,
  });
const stop = async (threadId, runId, options) => (await post('/stop', { threadId, ...(runId ? { runId } : {}) }, options)).json();
const messagesOf = async (threadId) =>
  (await (await fetch(`http://127.0.0.1:${PORTS[0]}/v1/sessions/${encodeURIComponent(threadId)}/messages`, { headers: AUTH })).json()).messages;

/** `[id, event]` of each frame; `limit` events, then the connection is cut. */
async function frames(response, limit = Infinity) {
  const found = [];
  let rest = '';
  for await (const bytes of response.body) {
    rest += Buffer.from(bytes).toString();
    assert.ok(!rest.includes('\r'));
    const whole = rest.split('\n\n');
    rest = whole.pop();
    for (const frame of whole) {
      const data = frame.match(/^data: (.*)$/m);
      if (!data) continue;
      // One event in each, with nothing but its id beside it.
      assert.match(frame, /^(id: [^\n]+\n)?data: [^\n]+$/);
      found.push([frame.match(/^id: (.*)$/m)?.[1], JSON.parse(data[1])]);
      if (found.length === limit) return found;
    }
  }
  return found;
}

const hasNull = (value) => value === null || (typeof value === 'object' && Object.values(value).some(hasNull));

/** Each event is one that the published schema describes, with no field that it does not, and none is null. */
function valid(events) {
  for (const event of events) {
    assert.deepEqual(EventSchemas.parse(event), event);
    if (event.type !== 'CUSTOM') assert.ok(!hasNull(event), JSON.stringify(event));
  }
}

/** What a run amounts to, whatever its deltas were cut into. */
function reduced(events) {
  const found = [];
  for (const event of events) {
    const { delta, ...rest } = event;
    const open = found.findLast((one) => one.type === event.type && (one.messageId ?? one.toolCallId) === (event.messageId ?? event.toolCallId));
    if (delta !== undefined && open) open.delta += delta;
    else found.push(event.metadata && event.type === 'RUN_STARTED' ? rest : { ...event });
  }
  return found;
}

async function until(condition, patience = 30_000) {
  const late = Date.now() + patience;
  while (!(await condition())) {
    assert.ok(Date.now() < late, `not within ${patience} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

for (const version of Object.keys(CLIENTS)) {
  test(`AGU-1, AGU-4, AGU-30 (${version}): text, reasoning, a tool and steps; every event is described`, async (t) => {
    const warnings = t.mock.method(console, 'warn');
    const threadId = unique();
    const made = agent(version, threadId);
    ask(made, 'script: reasoning=3 tokens=20 tool=server');
    await made.runAgent();
    assert.equal(textOf(made), numbers(20));
    assert.equal(types(made)[0], 'RUN_STARTED');
    assert.equal(last(made).type, 'RUN_FINISHED');
    assert.equal(made.events[0].metadata.turnId, last(made).metadata.turnId);
    assert.equal(made.events[0].protocolVersion, '1.0');
    for (const [start, end] of [['STEP_STARTED', 'STEP_FINISHED'], ['TEXT_MESSAGE_START', 'TEXT_MESSAGE_END'], ['TOOL_CALL_START', 'TOOL_CALL_END'], ['REASONING_START', 'REASONING_END']]) {
      const count = (type) => types(made).filter((one) => one === type).length;
      assert.ok(count(start) > 0 && count(start) === count(end), `${start} ${types(made)}`);
    }
    const tool = made.messages.find(({ role }) => role === 'tool');
    assert.match(tool.content, /what is known/);
    assert.ok(made.messages.some(({ role, content }) => role === 'reasoning' && content === 'r0 r1 r2 '));
    assert.deepEqual(warnings.mock.calls, []);
    valid((await frames(await post('', input(threadId, 'again', 'script: reasoning=3 tokens=20 tool=server')))).map(([, event]) => event));
  });

  test(`AGU-5, AGU-6 (${version}): a stop is final, closes what is open, and is shown as what it is`, async () => {
    const threadId = unique();
    const made = agent(version, threadId);
    ask(made, 'script: tokens=2000 rate=50');
    const running = made.runAgent();
    await until(() => textOf(made).length > 20);
    const answer = await stop(threadId);
    assert.equal(answer.stopped, true);
    const stored = (await messagesOf(threadId)).at(-1).message.parts.map((part) => part.text ?? '').join('');
    await running;
    assert.equal(textOf(made), stored);
    assert.deepEqual(types(made).slice(-3), ['TEXT_MESSAGE_END', 'STEP_FINISHED', 'RUN_FINISHED']);
    assert.equal(last(made).metadata.status, 'cancelled');
    assert.equal(last(made).outcome?.type, version === '1.0.0' ? 'cancelled' : undefined);
    assert.equal((await stop(threadId)).stopped, false);
    assert.equal((await stop(unique())).stopped, false);
    assert.equal((await post('/stop', { threadId, runId: 'no-one' })).status, 404);
  });

  test(`AGU-10 (${version}): a frontend's tool ends the run; its result resumes the same turn`, async () => {
    const threadId = unique();
    const made = agent(version, threadId);
    ask(made, 'script: tokens=4 tool=client');
    await made.runAgent();
    const { turnId } = last(made).metadata;
    const call = made.messages.flatMap(({ toolCalls }) => toolCalls ?? [])[0];
    if (version === '1.0.0') assert.deepEqual(last(made).outcome, { type: 'success', pendingToolCallIds: [call.id] });
    else assert.deepEqual(last(made).metadata.pendingToolCallIds, [call.id]);
    assert.ok(!types(made).includes('TOOL_CALL_RESULT'));
    made.addMessage({ id: crypto.randomUUID(), role: 'tool', toolCallId: call.id, content: '{"sky":"clear"}' });
    await made.runAgent();
    assert.equal(last(made).metadata.turnId, turnId);
    assert.equal(textOf(made), numbers(4));
    assert.equal(made.messages.filter(({ role }) => role === 'tool').length, 1);
    const part = (await messagesOf(threadId)).flatMap(({ message }) => message.parts).find(({ toolCallId }) => toolCallId);
    assert.deepEqual(part.output, { sky: 'clear' });
  });

  for (const status of ['resolved', 'cancelled']) {
    test(`AGU-11, AGU-13, AGU-14 (${version}): an approval is an interrupt, here ${status}`, async () => {
      const threadId = unique();
      const made = agent(version, threadId);
      ask(made, 'script: tokens=4 tool=server approve=1');
      await made.runAgent();
      const { outcome, metadata } = last(made);
      assert.equal(outcome.type, 'interrupt');
      assert.equal(outcome.interrupts.length, 1);
      const [{ id, toolCallId, reason }] = outcome.interrupts;
      assert.equal(reason, 'tool_approval');
      // No one answers for a person by leaving it out.
      const silent = await post('', input(threadId, crypto.randomUUID(), null, { resume: [{ interruptId: 'another', status: 'resolved' }] }));
      assert.equal(silent.status, 409);
      if (version === '1.0.0') await assert.rejects(made.runAgent(), /interrupt/i);
      const resume = [{ interruptId: id, status, ...(status === 'resolved' ? { payload: { approved: true } } : {}) }];
      await made.runAgent({ resume });
      assert.equal(last(made).type, 'RUN_FINISHED');
      assert.equal(last(made).metadata.turnId, metadata.turnId);
      assert.equal(textOf(made), numbers(4));
      const part = (await messagesOf(threadId)).flatMap(({ message }) => message.parts).find((one) => one.toolCallId === toolCallId);
      assert.equal(part.state, status === 'resolved' ? 'output-available' : 'output-denied');
      const late = await post('', input(threadId, crypto.randomUUID(), null, { resume }));
      assert.equal(late.status, 409);
    });
  }

  test(`AGU-20, AGU-24 (${version}): connect shows the same, with a part of the answer at hand or with nothing`, async () => {
    const threadId = unique();
    const made = agent(version, threadId);
    ask(made, 'script: reasoning=3 tool=server tokens=60 rate=40');
    const running = made.runAgent();
    await until(() => textOf(made).length > 20);
    const fresh = agent(version, threadId, { gateway: 1 });
    const stale = agent(version, threadId, { messages: structuredClone(made.messages) });
    await Promise.all([running, fresh.connectAgent(), stale.connectAgent()]);
    const shown = (one) => one.messages.map(({ id, role, content, toolCalls }) => ({ id, role, content: content ?? '', toolCalls }));
    const sorted = (one) => shown(one).sort((a, b) => (a.id < b.id ? -1 : 1));
    assert.equal(textOf(made), numbers(60));
    assert.deepEqual(sorted(fresh), sorted(made));
    assert.deepEqual(sorted(stale), sorted(made));
    const after = agent(version, threadId);
    await after.connectAgent();
    assert.deepEqual(shown(after), shown(fresh));
    assert.deepEqual(types(after), ['RUN_STARTED', 'MESSAGES_SNAPSHOT', 'RUN_FINISHED']);
    valid((await frames(await post('/connect', input(threadId, 'c', null)))).map(([, event]) => event));
  });

  test(`AGU-26 (${version}): text of an attempt that was replaced is taken back by a snapshot`, async () => {
    const threadId = unique();
    const made = agent(version, threadId);
    ask(made, 'script: tokens=30 rate=60 fail_at=12');
    await made.runAgent();
    assert.equal(textOf(made), numbers(30));
    assert.equal(last(made).type, 'RUN_FINISHED');
    assert.ok(types(made).includes('MESSAGES_SNAPSHOT'));
  });
}

for (const version of Object.keys(CLIENTS)) {
  test(`AGU-2, AGU-3, AGU-28 (${version}): every kind of part, as it comes, after a cut, and connected`, async (t) => {
    const warnings = t.mock.method(console, 'warn');
    const threadId = unique('everything');
    const made = agent(version, threadId);
    ask(made, 'go');
    await made.runAgent();
    const { interrupts } = last(made).outcome;
    assert.deepEqual(interrupts.map(({ toolCallId }) => toolCallId), ['pay-1']);
    assert.deepEqual(last(made).metadata.pendingToolCallIds, ['pick-1']);
    made.addMessage({ id: crypto.randomUUID(), role: 'tool', toolCallId: 'pick-1', content: 'this' });
    await made.runAgent({ resume: [{ interruptId: interrupts[0].id, status: 'cancelled' }] });
    assert.equal(textOf(made), 'one twoall done');
    assert.deepEqual(made.state, { page: 2, open: [] });
    const results = Object.fromEntries(made.messages.filter(({ role }) => role === 'tool').map(({ toolCallId, content }) => [toolCallId, content]));
    assert.deepEqual(results, { streamed: '{"whole":2}', failing: 'no such thing', garbled: 'no JSON', 'pick-1': 'this', 'pay-1': 'denied' });
    assert.deepEqual(made.messages.flatMap(({ toolCalls }) => toolCalls ?? []).map(({ id }) => id), ['streamed', 'failing', 'garbled', 'pay-1', 'pick-1']);
    const customs = made.events.filter(({ type }) => type === 'CUSTOM').map(({ name }) => name);
    assert.deepEqual(new Set(customs), new Set(['tool-output-preliminary', 'source-url', 'source-document', 'file', 'progress', 'note', 'passing']));
    // A fresh client gets the same by a snapshot, the state with it.
    const connected = agent(version, threadId, { gateway: 1 });
    await connected.connectAgent();
    assert.deepEqual(connected.state, made.state);
    assert.equal(textOf(connected), textOf(made));
    assert.deepEqual(types(connected), ['RUN_STARTED', 'MESSAGES_SNAPSHOT', 'STATE_SNAPSHOT', 'STATE_DELTA', 'RUN_FINISHED']);
    assert.deepEqual(warnings.mock.calls, []);
    // The same run, cut after each of its events.
    const { runId } = made.events[0];
    const whole = await frames(await post('', input(threadId, runId, 'go')));
    valid(whole.map(([, event]) => event));
    valid((await frames(await post('/connect', input(threadId, 'c', null)))).map(([, event]) => event));
    for (const [index, [id]] of whole.entries()) {
      if (!id || index === whole.length - 1) continue;
      const rest = await frames(await post('', input(threadId, runId, 'go'), { headers: { 'last-event-id': id } }));
      assert.deepEqual(reduced([...whole.slice(0, index + 1), ...rest].map(([, event]) => event)), reduced(whole.map(([, event]) => event)));
    }
  });

  test(`AGU-28 (${version}): the state of a client changes with each run; what a lost attempt made of it is taken back`, async () => {
    const made = agent(version, unique('stateful'));
    made.setState({ count: 4 });
    for (const count of [5, 6]) {
      ask(made, 'count');
      await made.runAgent();
      assert.deepEqual(made.state, { count });
    }
    ask(made, 'fail');
    await made.runAgent();
    assert.equal(last(made).type, 'RUN_FINISHED');
    assert.deepEqual(made.state, { count: 7 });
    assert.ok(!textOf(made).includes('wrong'));
    const connected = agent(version, made.threadId, { gateway: 1 });
    await connected.connectAgent();
    assert.deepEqual(connected.state, { count: 7 });
  });
}

test('AGU-31: no event is larger than clients accept, whatever a conversation holds', async () => {
  const threadId = unique('large');
  for (let number = 0; number < 11; number += 1) {
    const found = await frames(await post('', input(threadId, `r${number}`, '900000')));
    assert.equal(found.at(-1)[1].type, 'RUN_FINISHED');
  }
  const whole = await (await post('/connect', input(threadId, 'c', null))).text();
  assert.ok(whole.split('\n').every((line) => line.length < 10_000_000));
  const made = agent('1.0.0', threadId);
  await made.connectAgent();
  assert.equal(last(made).type, 'RUN_FINISHED');
  // The newest; an event with all of them would be none.
  const asked = made.messages.filter(({ role }) => role === 'user').map(({ id }) => id);
  assert.ok(asked.length >= 8 && asked.length < 11, `${asked}`);
  assert.equal(asked.at(-1), 'm-r10');
});

test('AGU-7, AGU-24: closing the response cancels nothing, and others see the answer', async () => {
  const threadId = unique();
  const made = agent('1.0.0', threadId);
  ask(made, 'script: tokens=40 rate=60');
  const running = made.runAgent().catch(() => {});
  await until(() => textOf(made).length > 10);
  made.abortRun();
  await running;
  await until(async () => (await messagesOf(threadId)).at(-1).message.parts.some(({ text }) => text === numbers(40)));
});

test('AGU-8, AGU-34, AGU-35: what cannot run is refused in words, before the stream', async () => {
  const threadId = unique();
  const refused = async (response, status) => {
    assert.equal(response.status, status);
    assert.ok((await response.json()).error.message.length > 10);
  };
  await refused(await post('', '{'), 400);
  await refused(await post('', { runId: 'r' }), 400);
  await refused(await post('', input(threadId, 'r', null)), 400);
  await refused(await post('', input('plain:x', 'r', 'hi')), 400);
  await refused(await post('', input(threadId, 'r', 'hi'), { headers: { authorization: 'Bearer nothing' } }), 401);
  await refused(await post('', input(threadId, 'r', 'x'.repeat(5_000_000))), 413);
  await refused(await post('', input(threadId, 'r', 'hi'), { headers: { accept: 'application/vnd.ag-ui.event+proto' } }), 406);
  await refused(await post('', input(threadId, 'r', 'hi'), { headers: { 'last-event-id': 'nonsense' } }), 400);
  for (const protocolVersion of ['1.9', 'garbage']) {
    const found = await frames(await post('', input(threadId, crypto.randomUUID(), 'script: tokens=1', { protocolVersion })));
    assert.equal(found.at(-1)[1].type, 'RUN_FINISHED');
  }
  // None of the refused left anything behind.
  const said = (await messagesOf(threadId)).filter(({ message }) => message.role === 'user');
  assert.equal(said.length, 2);
});

test('AGU-32: a slow reader gets everything, and the turn does not wait for it', async () => {
  const threadId = unique();
  const response = await post('', input(threadId, 'r1', 'script: tokens=20000 rate=0'));
  await until(async () => (await messagesOf(threadId)).at(-1)?.message.parts.some(({ text }) => text === numbers(20000)));
  const found = await frames(response);
  assert.equal(found.map(([, { delta }]) => delta ?? '').join(''), numbers(20000));
});

test('AGU-9: a failure is a RUN_ERROR with a message and a code; the text stays', async () => {
  const made = agent('1.0.0', unique());
  ask(made, 'script: tokens=9 fail_at=3 always=1');
  await made.runAgent();
  assert.equal(last(made).type, 'RUN_ERROR');
  assert.match(last(made).message, /scripted provider/);
  assert.match(last(made).code, /^\d+$/);
  assert.equal(textOf(made), numbers(3));
});

test('AGU-15, AGU-33: the same run twice is one turn; of two runs each response has its own', async () => {
  const threadId = unique();
  const body = input(threadId, 'r1', 'script: tokens=40 rate=60');
  const other = input(threadId, 'r2', 'script: tokens=7');
  const streams = await Promise.all([post('', body), post('', body, { gateway: 1 }), post('', other, { clientId: 'user-2' })]);
  const [one, two, three] = (await Promise.all(streams.map((response) => frames(response)))).map((found) => found.map(([, event]) => event));
  assert.deepEqual(reduced(one), reduced(two));
  const said = (events) => events.map(({ delta }) => delta ?? '').join('');
  assert.equal(said(one), numbers(40));
  assert.equal(said(three), numbers(7));
  assert.notEqual(one.at(-1).metadata.turnId, three.at(-1).metadata.turnId);
  assert.equal((await messagesOf(threadId)).length, 4);
});

test('AGU-16, AGU-19: cut after every event, and continued on the other gateway: nothing lost, nothing twice', async () => {
  const threadId = unique();
  const body = input(threadId, 'r1', 'script: reasoning=4 tool=server tokens=40 rate=100');
  // One reader is cut after each of its events while the turn runs.
  const live = [];
  let after;
  for (let turn = 0; live.at(-1)?.[1].type !== 'RUN_FINISHED'; turn += 1) {
    assert.ok(turn < 500);
    live.push(...(await frames(await post('', body, { gateway: turn, headers: after ? { 'last-event-id': after } : {} }), 1)));
    after = live.at(-1)[0] ?? after;
  }
  const whole = await frames(await post('', body));
  const events = (found) => reduced(found.map(([, event]) => event));
  assert.deepEqual(events(live), events(whole));
  valid(live.map(([, event]) => event));
  // And after each event of what was sent live, once the turn has ended.
  for (const [index, [id]] of live.entries()) {
    const rest = await frames(await post('', body, { headers: { 'last-event-id': id } }));
    if (index < live.length - 1) assert.deepEqual(events([...live.slice(0, index + 1), ...rest]), events(whole));
  }
  assert.equal((await messagesOf(threadId)).filter(({ message }) => message.role === 'user').length, 1);
});

test('AGU-19: a run that went on after a suspension is cut and continued too, and the run before it stays what it was', async () => {
  const threadId = unique();
  const first = input(threadId, 'r1', 'script: tokens=30 rate=200 tool=client');
  const begun = await frames(await post('', first));
  const [toolCallId] = begun.at(-1)[1].outcome.pendingToolCallIds;
  const second = input(threadId, 'r2', null, { messages: [{ id: 't', role: 'tool', toolCallId, content: 'done' }] });
  const part = await frames(await post('', second), 6);
  const rest = await frames(await post('', second, { gateway: 1, headers: { 'last-event-id': part.at(-1)[0] } }));
  const whole = await frames(await post('', second));
  const events = (found) => reduced(found.map(([, event]) => event));
  assert.deepEqual(events([...part, ...rest]), events(whole));
  assert.deepEqual(events(await frames(await post('', first))), events(begun));
});

test('AGU-5, AGU-6: a stop in mid reasoning closes it; one of an older run leaves the newer alone', async () => {
  const threadId = unique();
  const made = agent('1.0.0', threadId);
  ask(made, 'script: reasoning=2000 rate=50');
  const running = made.runAgent();
  await until(() => types(made).includes('REASONING_MESSAGE_CONTENT'));
  const { runId } = made.events[0];
  const stopping = [stop(threadId, runId), stop(threadId, runId, { gateway: 1 })];
  const answers = await Promise.all(stopping);
  assert.ok(answers.some(({ stopped }) => stopped));
  await running;
  assert.deepEqual(types(made).slice(-4), ['REASONING_MESSAGE_END', 'REASONING_END', 'STEP_FINISHED', 'RUN_FINISHED']);
  ask(made, 'script: tokens=40 rate=60');
  const newer = made.runAgent();
  await until(() => textOf(made).length > 10);
  assert.equal((await stop(threadId, runId)).stopped, false);
  await newer;
  assert.equal(textOf(made), numbers(40));
});

test('AGU-24: what a plain useChat page sends is there after connect, and what AG-UI sends is there for it', async () => {
  const threadId = unique();
  const base = `http://127.0.0.1:${PORTS[0]}/api/chat`;
  const message = { id: `u-${threadId}`, role: 'user', parts: [{ type: 'text', text: 'script: say=from the page' }] };
  const page = await fetch(base, { method: 'POST', headers: { ...as('user-2'), ...JSON_TYPE }, body: JSON.stringify({ id: threadId, messages: [message], trigger: 'submit-message' }) });
  await page.text();
  const made = agent('1.0.0', threadId);
  await made.connectAgent();
  assert.deepEqual(made.messages.map(({ role, content }) => [role, content.trim()]), [['user', 'script: say=from the page'], ['assistant', 'from the page']]);
  ask(made, 'script: say=from here');
  await made.runAgent();
  const shown = await (await fetch(`${base}/${encodeURIComponent(threadId)}/messages`, { headers: as('user-2') })).json();
  assert.deepEqual(shown.map(({ id }) => id), made.messages.map(({ id }) => id));
});

test('AGU-25: the prompt is what is stored, not what a client says was said', async () => {
  const threadId = unique();
  const made = agent('1.0.0', threadId);
  ask(made, 'script: say=first');
  await made.runAgent();
  made.setMessages(made.messages.map((message) => ({ ...message, content: 'forged' })));
  ask(made, 'script: echo_context=1');
  await made.runAgent();
  assert.match(made.messages.at(-1).content, /say=first/);
  assert.doesNotMatch(made.messages.at(-1).content, /forged/);
});

test('a message that is sent again after its turn has ended gets another answer', async () => {
  const threadId = unique();
  const made = agent('1.0.0', threadId);
  ask(made, 'script: say=one');
  await made.runAgent();
  const [question, old] = made.messages;
  made.setMessages([question]);
  await made.runAgent();
  assert.notEqual(made.messages[1].id, old.id);
  assert.equal((await messagesOf(threadId)).length, 2);
});

// Its core connects in a browser only.
const copilot = (threadId, extra = {}) => (globalThis.window ??= globalThis) && new CopilotKitCore({ runtimeUrl: url(), headers: as('user-1'), ...extra });

for (const runtimeTransport of ['rest', 'single']) {
  test(`AGU-21, AGU-22, AGU-23: CopilotKit's core, ${runtimeTransport}: info, run, connect, stop`, async () => {
    const threadId = unique();
    const core = copilot(threadId, { runtimeTransport });
    const errors = [];
    core.subscribe({ onError: ({ error }) => void errors.push(error) });
    await until(() => core.getAgent('default') && core.runtimeConnectionStatus === 'connected');
    const made = core.getAgent('default');
    made.threadId = threadId;
    ask(made, 'script: tokens=10');
    await core.runAgent({ agent: made });
    assert.equal(textOf(made), numbers(10));
    ask(made, 'script: tokens=2000 rate=50');
    const running = core.runAgent({ agent: made });
    await until(() => textOf(made).length > numbers(20).length);
    core.stopAgent({ agent: made });
    await running;
    const stored = (await messagesOf(threadId)).filter(({ message }) => message.role === 'assistant');
    assert.equal(textOf(made), stored.flatMap(({ message }) => message.parts).map(({ text }) => text ?? '').join(''));
    const { turns } = await (await fetch(`http://127.0.0.1:${PORTS[0]}/v1/sessions/${encodeURIComponent(threadId)}/turns`, { headers: AUTH })).json();
    assert.deepEqual(turns, []);
    const seen = await (await fetch(`http://127.0.0.1:${PORTS[0]}/v1/sessions/${encodeURIComponent(threadId)}/messages`, { headers: AUTH })).json();
    assert.equal(seen.turns.at(-1).status, 'cancelled');
    const second = copilot(threadId, { runtimeTransport });
    await until(() => second.getAgent('default') && second.runtimeConnectionStatus === 'connected');
    const mounted = second.getAgent('default');
    mounted.threadId = threadId;
    await second.connectAgent({ agent: mounted });
    assert.equal(textOf(mounted), textOf(made));
    assert.deepEqual(errors, []);
  });
}

/** A `fetch` that cuts each answer's body after some bytes, as long as `times` lasts. */
function cutting(times, bytes) {
  const record = { posts: 0, resumed: 0 };
  const cut = async (address, request) => {
    if (request?.method === 'POST') record.posts += 1;
    if (new Headers(request?.headers).has('last-event-id')) record.resumed += 1;
    const response = await fetch(address, request);
    if (times-- <= 0 || !response.body) return response;
    let left = bytes;
    const body = response.body.pipeThrough(
      new TransformStream({
        transform(chunk, controller) {
          controller.enqueue(chunk.subarray(0, left));
          left -= chunk.length;
          if (left <= 0) controller.error(new TypeError('terminated'));
        },
      }),
    );
    return new Response(body, response);
  };
  return Object.assign(cut, { record });
}

const tanstackText = (client) =>
  client.getMessages().filter(({ role }) => role === 'assistant').flatMap(({ parts }) => parts).map(({ type, content }) => (type === 'text' ? content : '')).join('');

test("AGU-16: TanStack's client is cut in mid answer and goes on: exact text, one turn", async () => {
  const threadId = unique();
  const fetchClient = cutting(3, 1500);
  const client = new ChatClient({ threadId, connection: fetchServerSentEvents(url(), { headers: as('user-1'), fetchClient }) });
  await client.sendMessage('script: reasoning=3 tokens=100 rate=150');
  assert.equal(client.getError?.() ?? undefined, undefined);
  assert.equal(tanstackText(client), numbers(100));
  assert.ok(fetchClient.record.resumed >= 2, JSON.stringify(fetchClient.record));
  assert.equal((await messagesOf(threadId)).length, 2);
});

test("AGU-18: TanStack's client after a reload: the history once, and the running answer once", async () => {
  const threadId = unique();
  const connection = (gateway) => fetchServerSentEvents(url(gateway), { headers: as('user-1') });
  const client = new ChatClient({ threadId, connection: connection(0) });
  await client.sendMessage('script: say=before');
  const sending = client.sendMessage('script: tokens=80 rate=80');
  await until(() => tanstackText(client).length > 40);
  const reloaded = new ChatClient({ threadId, persistence: true, connection: connection(1) });
  reloaded.attach();
  await until(() => tanstackText(reloaded).endsWith(numbers(80)));
  await sending;
  assert.equal(tanstackText(reloaded), tanstackText(client));
  assert.equal(reloaded.getMessages().length, 4);
});

for (const approved of [true, false]) {
  test(`TanStack's client answers an approval, here ${approved}: bound to what it asks, and the same turn goes on`, async () => {
    const threadId = unique();
    const client = new ChatClient({ threadId, connection: fetchServerSentEvents(url(), { headers: as('user-1') }) });
    await client.sendMessage('script: tokens=4 tool=server approve=1');
    const [pending] = client.getInterrupts();
    assert.deepEqual([pending.metadata.toolName, pending.metadata.input], ['lookup', { query: 'the scripted question' }]);
    await pending.resolveInterrupt({ approved });
    await until(() => tanstackText(client) === numbers(4));
    const [part] = (await messagesOf(threadId)).flatMap(({ message }) => message.parts).filter(({ toolCallId }) => toolCallId);
    assert.equal(part.state, approved ? 'output-available' : 'output-denied');
  });
}

test("TanStack's client gives the result of a frontend's tool", async () => {
  const threadId = unique();
  const client = new ChatClient({ threadId, connection: fetchServerSentEvents(url(), { headers: as('user-1') }) });
  await client.sendMessage('script: tokens=4 tool=client');
  const { id } = client.getMessages().at(-1).parts.find(({ type }) => type === 'tool-call');
  await client.addToolResult({ toolCallId: id, tool: 'lookup', output: { sky: 'clear' } });
  await until(() => tanstackText(client) === numbers(4));
  assert.equal((await messagesOf(threadId)).filter(({ message }) => message.role === 'user').length, 1);
});

test("CopilotKit's core runs a frontend's tool by itself, and the same turn goes on", async () => {
  const threadId = unique();
  const asked = [];
  const handler = async (input) => (asked.push(input), { sky: 'clear' });
  const core = copilot(threadId, { tools: [{ name: 'lookup', description: 'looks', handler }] });
  await until(() => core.getAgent('default') && core.runtimeConnectionStatus === 'connected');
  const made = core.getAgent('default');
  made.threadId = threadId;
  ask(made, 'script: tokens=4 tool=client');
  await core.runAgent({ agent: made });
  await until(() => textOf(made) === numbers(4));
  assert.deepEqual(asked, [{ query: 'the scripted question' }]);
  const { turns } = await (await fetch(`http://127.0.0.1:${PORTS[0]}/v1/sessions/${encodeURIComponent(threadId)}/messages`, { headers: AUTH })).json();
  assert.equal(turns.length, 1);
});

for (const status of ['resolved', 'cancelled']) {
  test(`CopilotKit's core answers an approval, here ${status}, on mount too, and the same turn goes on`, async () => {
    const threadId = unique();
    const mounted = async (core) => {
      await until(() => core.getAgent('default') && core.runtimeConnectionStatus === 'connected');
      return Object.assign(core.getAgent('default'), { threadId });
    };
    const asking = copilot(threadId);
    const first = await mounted(asking);
    ask(first, 'script: tokens=4 tool=server approve=1');
    await asking.runAgent({ agent: first });
    // Another page: it finds the question when it connects.
    const core = copilot(threadId);
    const made = await mounted(core);
    const events = [];
    made.subscribe({ onEvent: ({ event }) => void events.push(event) });
    await core.connectAgent({ agent: made });
    const [{ id, toolCallId }] = events.at(-1).outcome.interrupts;
    await core.runAgent({ agent: made, resume: [{ interruptId: id, status }] });
    assert.equal(textOf(made), numbers(4));
    const [part] = (await messagesOf(threadId)).flatMap(({ message }) => message.parts).filter((one) => one.toolCallId === toolCallId);
    assert.equal(part.state, status === 'resolved' ? 'output-available' : 'output-denied');
    assert.equal((await messagesOf(threadId)).filter(({ message }) => message.role === 'user').length, 1);
  });
}
