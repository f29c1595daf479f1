// Plain `useChat` over HTTP, without any SDK of a session: the chat class and the transport of four versions of `ai`.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { KEY, PORTS, ended, join, seen, textOf, tokens as numbers, unique } from './support.mjs';

const VERSIONS = { 7: await import('ai'), 6: await import('ai6'), '6.0.206': await import('ai6-206'), '6.0.1': await import('ai6-1') };
const MAJORS = ['7', '6'];
const AUTH = { authorization: `Basic ${Buffer.from(KEY).toString('base64')}` };
const url = (gateway = 0) => `http://127.0.0.1:${PORTS[gateway % PORTS.length]}`;
// A person has a name: each tab of theirs uses it.
const as = (clientId) => ({ ...AUTH, 'x-ably-clientid': Buffer.from(clientId).toString('base64') });

/** The bare chat class with the default transport; `chunks` are all that was read, `posts` counts requests. */
function page(version, id, { messages = [], gateway = 0, clientId = 'user-1', transport = {}, ...init } = {}) {
  const ai = VERSIONS[version];
  const state = {
    messages,
    status: 'ready',
    error: undefined,
    pushMessage: (message) => (state.messages = [...state.messages, message]),
    popMessage: () => (state.messages = state.messages.slice(0, -1)),
    replaceMessage: (index, message) => (state.messages = state.messages.with(index, structuredClone(message))),
    snapshot: (thing) => structuredClone(thing),
  };
  const record = { chunks: [], posts: 0, responses: [] };
  const recording = async (input, request) => {
    if (request?.method === 'POST') record.posts += 1;
    const response = await fetch(input, request);
    record.responses.push(response);
    if (!response.ok || !response.body) return response;
    const [read, kept] = response.body.tee();
    void collect(kept, record.chunks).catch(() => {});
    return new Response(read, response);
  };
  class Chat extends ai.AbstractChat {}
  const chat = new Chat({
    id,
    messages,
    state,
    transport: new ai.DefaultChatTransport({ api: `${url(gateway)}/api/chat`, headers: as(clientId), fetch: recording, ...transport }),
    ...init,
  });
  return Object.assign(chat, { record });
}

async function collect(body, chunks) {
  let rest = '';
  for await (const chunk of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    for (const line of lines) if (line.startsWith('data: {')) chunks.push(JSON.parse(line.slice(6)));
  }
}

const call = (path, { clientId = 'user-1', gateway = 0, ...request } = {}) =>
  fetch(`${url(gateway)}${path}`, { ...request, headers: { ...as(clientId), ...request.headers } });
const history = async (id, options) => (await call(`/api/chat/${encodeURIComponent(id)}/messages`, options)).json();
const stop = async (id, body, options) =>
  (
    await call(`/api/chat/${encodeURIComponent(id)}/stop`, {
      method: 'POST',
      ...(body ? { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } } : {}),
      ...options,
    })
  ).json();
const post = (id, message, extra = {}) =>
  call('/api/chat', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ id, messages: [message], trigger: 'submit-message', ...extra }),
  });
const ask = (text, id = unique('m').replace(':', '-')) => ({ id, role: 'user', parts: [{ type: 'text', text }] });
const saying = (chat) => textOf(chat.messages.at(-1));
const streamsText = (chat, least = 1) => until(() => chat.status === 'streaming' && chat.messages.at(-1)?.role === 'assistant' && saying(chat).length >= least);

/** Neither the chat class nor HTTP tells of changes: both are asked until the condition holds. */
async function until(condition, patience = 30_000) {
  const late = Date.now() + patience;
  while (!(await condition())) {
    assert.ok(Date.now() < late, `not within ${patience} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

for (const version of Object.keys(VERSIONS)) {
  test(`UIM-1, UIM-2, UIM-4, UIM-5 (${version}): streams, and after a reload in mid answer it is whole and there once`, async () => {
    const id = unique();
    const chat = page(version, id);
    assert.deepEqual(await history(id), []);
    assert.equal((await call(`/api/chat/${encodeURIComponent(id)}/stream`)).status, 204);
    const sending = chat.sendMessage({ text: 'script: reasoning=3 tokens=40 rate=60' });
    await streamsText(chat, 10);
    const before = await history(id);
    assert.deepEqual(before.map((message) => message.role), ['user']);
    const reloaded = page(version, id, { messages: before, gateway: 1 });
    await Promise.all([reloaded.resumeStream(), sending]);
    for (const one of [chat, reloaded]) {
      assert.equal(one.error, undefined);
      assert.equal(one.messages.length, 2);
      assert.equal(saying(one), numbers(40));
    }
    assert.equal(reloaded.messages[1].id, chat.messages[1].id);
    assert.ok(reloaded.messages[1].parts.some((part) => part.type === 'reasoning' && part.text.length > 0));
    assert.equal(reloaded.record.posts, 0);
    const headers = chat.record.responses[0].headers;
    assert.equal(headers.get('x-vercel-ai-ui-message-stream'), 'v1');
    assert.match(headers.get('content-type'), /^text\/event-stream/);
    const after = await history(id);
    assert.deepEqual(after.map((message) => message.id), chat.messages.map((message) => message.id));
    assert.equal(textOf(after[1]), numbers(40));
    assert.equal((await call(`/api/chat/${encodeURIComponent(id)}/stream`)).status, 204);
  });
}

for (const version of MAJORS) {
  test(`UIM-10, UIM-16 (${version}): a stop is final, and the same in every tab`, async () => {
    const id = unique();
    const chat = page(version, id);
    const sending = chat.sendMessage({ text: 'script: tokens=2000 rate=50' });
    await streamsText(chat, 20);
    const second = page(version, id, { messages: await history(id), gateway: 1 });
    const following = second.resumeStream();
    await streamsText(second, 30);
    const answer = await stop(id);
    assert.equal(answer.matched.length, 1);
    const stored = textOf((await history(id)).at(-1));
    await Promise.all([sending, following]);
    for (const one of [chat, second]) {
      assert.equal(one.status, 'ready');
      assert.equal(saying(one), stored);
      assert.equal(one.messages.at(-1).metadata.status, 'cancelled');
    }
    // UIM-11: again, and of an older turn while a newer one runs.
    assert.deepEqual((await stop(id)).matched, []);
    const newer = chat.sendMessage({ text: 'script: tokens=60 rate=60' });
    await streamsText(chat, 10);
    for (const stale of [{ turnId: answer.matched[0] }, { messageId: second.messages[1].id }, { messageId: 'no-one' }]) {
      assert.deepEqual((await stop(id, stale)).matched, []);
    }
    await newer;
    assert.equal(saying(chat), numbers(60));
  });

  test(`UIM-9, UIM-12 (${version}): closing the response cancels nothing; the next message ends the old turn`, async () => {
    const id = unique();
    const chat = page(version, id);
    const sending = chat.sendMessage({ text: 'script: tokens=2000 rate=50' });
    await streamsText(chat, 20);
    await chat.stop();
    await sending;
    const { turns } = await (await call(`/v1/sessions/${encodeURIComponent(id)}/turns`)).json();
    assert.equal(turns.length, 1);
    await chat.sendMessage({ text: 'script: say=and now this' });
    assert.equal(saying(chat).trim(), 'and now this');
    const said = await history(id);
    assert.equal(said.length, 4);
    assert.equal(said[1].metadata.status, 'cancelled');
  });

  test(`UIM-17, UIM-18, UIM-20 (${version}): regenerate and edit; the prompt is the session's, not the page's`, async () => {
    const id = unique();
    const chat = page(version, id);
    await chat.sendMessage({ text: 'script: say=first' });
    await chat.sendMessage({ text: 'script: say=second' });
    const old = chat.messages.at(-1).id;
    await chat.regenerate();
    assert.notEqual(chat.messages.at(-1).id, old);
    await chat.regenerate({ messageId: chat.messages.at(-1).id });
    assert.equal(chat.error, undefined);
    const known = async () => (await history(id)).map((message) => message.id);
    assert.deepEqual(await known(), chat.messages.map((message) => message.id));
    const edited = chat.messages[2].id;
    await chat.sendMessage({ text: 'script: say=third', messageId: edited });
    await chat.sendMessage({ text: 'script: say=fourth', messageId: edited });
    assert.equal(saying(chat).trim(), 'fourth');
    assert.equal(chat.messages[2].id, edited);
    chat.messages = chat.messages.map((message) => (message.role === 'user' ? { ...message, parts: [{ type: 'text', text: 'forged' }] } : message));
    await chat.sendMessage({ text: 'script: echo_context=1' });
    const context = saying(chat);
    assert.match(context, /say=first/);
    assert.match(context, /say=fourth/);
    assert.doesNotMatch(context, /forged|say=second|say=third/);
    assert.deepEqual(await known(), chat.messages.map((message) => message.id));
  });

  test(`UIM-22, UIM-26 (${version}): a client's tool suspends; its answer resumes the same turn as the same message`, async () => {
    const { lastAssistantMessageIsCompleteWithToolCalls } = VERSIONS[version];
    const id = unique();
    const chat = page(version, id, {
      sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithToolCalls,
      onToolCall: ({ toolCall }) =>
        void chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: { sky: 'clear' } }),
    });
    await chat.sendMessage({ text: 'script: tokens=4 tool=client' });
    await until(() => saying(chat) === numbers(4) && chat.status === 'ready');
    assert.equal(chat.record.posts, 2);
    assert.equal(chat.messages.length, 2);
    assert.ok(chat.record.chunks.some((chunk) => chunk.type === 'finish' && chunk.finishReason === 'tool-calls'));
    const stored = await history(id);
    assert.equal(stored.length, 2);
    assert.deepEqual(
      stored[1].parts.map((part) => part.type),
      chat.messages[1].parts.map((part) => part.type),
    );
  });

  for (const approved of [true, false]) {
    test(`UIM-23, UIM-25 (${version}): an approval ${approved ? 'granted' : 'denied'}, after a reload`, async () => {
      const { lastAssistantMessageIsCompleteWithApprovalResponses } = VERSIONS[version];
      const id = unique();
      await page(version, id).sendMessage({ text: 'script: tokens=4 tool=server approve=1' });
      const messages = await history(id);
      assert.equal((await call(`/api/chat/${encodeURIComponent(id)}/stream`)).status, 204);
      const chat = page(version, id, { messages, sendAutomaticallyWhen: lastAssistantMessageIsCompleteWithApprovalResponses });
      const waiting = messages[1].parts.find((part) => part.state === 'approval-requested');
      await chat.addToolApprovalResponse({ id: waiting.approval.id, approved, reason: 'a reason' });
      await until(() => saying(chat) === numbers(4) && chat.status === 'ready');
      assert.equal(chat.messages.length, 2);
      const [stored] = (await history(id))[1].parts.filter((part) => part.toolCallId);
      assert.equal(stored.state, approved ? 'output-available' : 'output-denied');
      assert.deepEqual(stored.approval, { id: waiting.approval.id, approved, reason: 'a reason' });
    });
  }

  test(`UIM-24 (${version}): two tabs answer one call: the first counts, there is one turn`, async () => {
    const id = unique();
    const { lastAssistantMessageIsCompleteWithToolCalls: sendAutomaticallyWhen } = VERSIONS[version];
    await page(version, id).sendMessage({ text: 'script: tokens=4 tool=client' });
    const messages = await history(id);
    const part = messages[1].parts.find(({ toolCallId }) => toolCallId);
    const tabs = [0, 1].map((gateway) => page(version, id, { messages: structuredClone(messages), gateway, sendAutomaticallyWhen }));
    await Promise.all(tabs.map((tab, number) => tab.addToolOutput({ tool: 'lookup', toolCallId: part.toolCallId, output: number })));
    await until(async () => (await history(id)).length === 2 && textOf((await history(id))[1] ?? { parts: [] }) === numbers(4));
    for (const tab of tabs) {
      await until(() => tab.status !== 'submitted' && tab.status !== 'streaming');
      if (tab.status === 'error') assert.match(tab.error.message, /ended|answer/);
    }
    assert.equal((await history(id)).length, 2);
  });

  test(`UIM-27 (${version}): a page that sends by itself does not go on after a stop`, async () => {
    const { lastAssistantMessageIsCompleteWithToolCalls: sendAutomaticallyWhen } = VERSIONS[version];
    const id = unique();
    const chat = page(version, id);
    const sending = chat.sendMessage({ text: 'script: tool=server tokens=2000 rate=2' });
    await until(() => chat.messages.at(-1)?.parts.some((part) => part.state === 'output-available'));
    const second = page(version, id, { messages: await history(id), sendAutomaticallyWhen });
    const following = second.resumeStream();
    await until(() => second.messages.at(-1)?.parts.some((part) => part.state === 'output-available'));
    await stop(id);
    await Promise.all([sending, following]);
    assert.equal(second.record.posts, 0);
    assert.equal(second.status, 'ready');
  });

  test(`UIM-31 (${version}): failures are text that a person can read, and the next message works`, async () => {
    const id = unique();
    const chat = page(version, id);
    await chat.sendMessage({ text: 'script: tokens=9 fail_at=3 always=1' });
    assert.equal(chat.status, 'error');
    assert.ok(chat.error.message.length > 10 && !chat.error.message.includes('{'));
    await chat.sendMessage({ text: 'script: say=better' });
    assert.equal(saying(chat).trim(), 'better');
    const stranger = page(version, id, { transport: { headers: { authorization: 'Bearer nothing' } } });
    await stranger.sendMessage({ text: 'hi' });
    assert.equal(stranger.status, 'error');
    assert.ok(!stranger.error.message.includes('{'));
  });
}

test('UIM-19: the same request sent twice is one turn, and both responses stream it', async () => {
  const id = unique();
  const message = ask('script: tokens=40 rate=60');
  const first = await post(id, message);
  const second = await post(id, message);
  const read = async (response) => {
    const chunks = [];
    await collect(response.body, chunks);
    return chunks.filter(({ type }) => type === 'text-delta').map(({ delta }) => delta).join('');
  };
  assert.deepEqual(await Promise.all([read(first), read(second)]), [numbers(40), numbers(40)]);
  assert.equal((await history(id)).length, 2);
});

test('UIM-21: pages that send the last message only, and sessions named by the path', async () => {
  const id = unique();
  const only = { prepareSendMessagesRequest: ({ id: chat, messages, trigger, messageId }) => ({ body: { id: chat, message: messages.at(-1), trigger, messageId } }) };
  const chat = page('7', id, { transport: only });
  await chat.sendMessage({ text: 'script: say=one' });
  await chat.sendMessage({ text: 'script: say=two' });
  assert.equal((await history(id)).length, 4);
  const named = page('7', 'any', { transport: { api: `${url()}/v1/ui/${encodeURIComponent(id)}` } });
  await named.sendMessage({ text: 'script: say=three' });
  assert.equal(saying(named).trim(), 'three');
  assert.equal((await history(id)).length, 6);
});

test('UIM-28: every chunk is one that the oldest client accepts', async () => {
  const { uiMessageChunkSchema } = VERSIONS['6.0.1'];
  const schema = typeof uiMessageChunkSchema === 'function' ? uiMessageChunkSchema() : uiMessageChunkSchema;
  const scripts = ['reasoning=2 tokens=3', 'tool=server tokens=3', 'tool=client', 'tool=server approve=1', 'tokens=3 fail_at=1 always=1'];
  for (const script of scripts) {
    const chat = page('7', unique());
    await chat.sendMessage({ text: `script: ${script}` });
    assert.ok(chat.record.chunks.length >= 3, script);
    for (const chunk of chat.record.chunks) {
      const { success, error } = await schema.validate(chunk);
      assert.ok(success, `${JSON.stringify(chunk)}: ${error}`);
      assert.ok(!JSON.stringify(chunk).includes('null'), JSON.stringify(chunk));
    }
  }
});

for (const version of Object.keys(VERSIONS)) {
  test(`UIM-28, UIM-30 (${version}): every kind of part arrives, in chunks that the oldest client accepts, and is stored`, async () => {
    const { uiMessageChunkSchema } = VERSIONS['6.0.1'];
    const schema = typeof uiMessageChunkSchema === 'function' ? uiMessageChunkSchema() : uiMessageChunkSchema;
    const id = unique('everything');
    const chat = page(version, id);
    await chat.sendMessage({ text: 'go' });
    assert.equal(chat.error, undefined);
    for (const chunk of chat.record.chunks) {
      const { success, error } = await schema.validate(chunk);
      assert.ok(success, `${JSON.stringify(chunk)}: ${error}`);
      assert.ok(!JSON.stringify(chunk).includes('null'), JSON.stringify(chunk));
    }
    const kinds = (message) => message.parts.map(({ type, state, text }) => [type, type.startsWith('tool-') ? state : text]);
    const [, answer] = await history(id);
    assert.deepEqual(kinds(chat.messages[1]), kinds(answer));
    const shown = new Set(answer.parts.map(({ type }) => type));
    for (const type of ['reasoning', 'text', 'tool-look', 'tool-pay', 'tool-pick', 'source-url', 'source-document', 'file', 'data-progress', 'data-note']) assert.ok(shown.has(type), type);
    // A page that is loaded again gets the same, by a stream of a turn that waits no more.
    const waiting = structuredClone(answer);
    waiting.parts = waiting.parts.map((part) => {
      if (part.type === 'tool-pick') return { ...part, state: 'output-available', output: 'this' };
      return part.type === 'tool-pay' ? { ...part, state: 'approval-responded', approval: { ...part.approval, approved: false } } : part;
    });
    const again = page(version, id, { messages: [(await history(id))[0], waiting], gateway: 1 });
    await again.sendMessage();
    assert.equal(again.error, undefined);
    assert.ok(textOf(again.messages.at(-1)).endsWith('all done'));
    assert.deepEqual(kinds(again.messages.at(-1)).filter(([type]) => type !== 'step-start'), kinds((await history(id))[1]).filter(([type]) => type !== 'step-start'));
  });
}

test('UIM-32, UIM-33: a turn that waits keeps its response open; stopped while it waits it ends', async () => {
  const id = unique('queue');
  const first = page('7', id);
  const running = first.sendMessage({ text: 'script: tokens=60 rate=60' });
  await streamsText(first, 10);
  const second = page('7', id, { clientId: 'user-2' });
  const waiting = second.sendMessage({ text: 'script: say=at last' });
  const third = page('7', id, { clientId: 'user-3' });
  const withdrawn = third.sendMessage({ text: 'script: say=never' });
  await until(async () => (await (await call(`/v1/sessions/${encodeURIComponent(id)}/queue`)).json()).queued === 2);
  assert.equal((await stop(id, undefined, { clientId: 'user-3' })).matched.length, 1);
  await Promise.all([running, waiting, withdrawn]);
  assert.equal(saying(first), numbers(60));
  assert.equal(saying(second).trim(), 'at last');
  assert.equal(third.status, 'ready');
});

test('UIM-34: a client of AI Transport and a plain page share a session, and stop each other', async (t) => {
  const id = unique();
  const ably = await join(t, 'user-2', id);
  const chat = page('7', id);
  for (const stopper of ['page', 'ably']) {
    const sending = chat.sendMessage({ text: 'script: tokens=2000 rate=50' });
    await streamsText(chat, 20);
    const { turnId } = chat.messages.at(-1).metadata;
    await seen(ably, 'the page\'s answer', () => ably.tree.getRunNode(turnId));
    await (stopper === 'page' ? stop(id) : ably.session.cancel(turnId));
    await Promise.all([sending, ended(ably, turnId, 'cancelled')]);
    assert.equal(chat.messages.at(-1).metadata.status, 'cancelled');
    await seen(ably, 'the same text', () => ably.view.getMessages().some(({ message }) => textOf(message) === saying(chat)));
  }
});

test('UIM-36: a slow reader gets everything', async () => {
  const id = unique();
  const response = await post(id, ask('script: tokens=20000 rate=0'));
  await until(async () => textOf((await history(id)).at(-1))?.length > 100 && (await history(id)).length === 2);
  const chunks = [];
  await collect(response.body, chunks);
  assert.equal(chunks.filter(({ type }) => type === 'text-delta').map(({ delta }) => delta).join(''), numbers(20000));
});

test('UIM-37: a request of WorkflowChatTransport is refused in words', async () => {
  const response = await call('/api/chat', {
    method: 'POST',
    headers: { 'content-type': 'text/plain;charset=UTF-8' },
    body: JSON.stringify({ messages: [ask('hi')] }),
  });
  assert.ok(response.status >= 400 && response.status < 500);
  assert.ok((await response.text()).length > 20);
});

test('UIM-38: the wake-up of AI Transport clients on the same path still answers 202', async () => {
  const response = await call('/api/chat', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ inputEventId: 'an-event', sessionName: unique() }),
  });
  assert.equal(response.status, 202);
});

// The lines of the guide, as they stand there, in a page that is reloaded in the middle of an answer.
const GUIDE = await readFile(new URL('../../docs/front-ends.md', import.meta.url), 'utf8');
const LINES = /```jsx\n(const api = [\s\S]*?)```/.exec(GUIDE)[1];
for (const version of MAJORS) {
  for (const path of ['/api/chat', '/v1/ui/SESSION']) {
    test(`the guide's lines resume and stop: ai ${version}, ${path}`, async () => {
      const id = unique('guide');
      const open = page(version, id);
      const sent = open.sendMessage({ text: 'tokens=400 rate=100' });
      await until(() => open.record.chunks.some(({ type }) => type === 'text-delta'));
      const api = `${url()}${path.replace('SESSION', id)}`;
      const body = LINES.replace(/const api = .*\n/, '').replace(/const headers = .*\n/, '');
      const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor;
      const guide = new AsyncFunction('api', 'headers', 'id', 'DefaultChatTransport', 'useChat', `${body}; return { chat, messages, stop };`);
      const useChat = ({ id: chatId, messages, transport }) => page(version, chatId, { messages, transport: given(transport) });
      const { chat, messages, stop: stopIt } = await guide(api, as('user-1'), id, VERSIONS[version].DefaultChatTransport, useChat);
      assert.deepEqual(messages.map(({ role }) => role), ['user']);
      const resumed = chat.resumeStream();
      await until(() => chat.record.chunks.some(({ type }) => type === 'text-delta'));
      await stopIt();
      await Promise.all([sent, resumed]);
      assert.equal(chat.error, undefined);
      assert.deepEqual(chat.messages.map(({ role }) => role), ['user', 'assistant']);
      assert.ok(saying(chat).length > 0);
    });
  }
}
// Of the newest versions a page that was cut needs one call; older ones keep the half that they have beside it.
for (const version of Object.keys(VERSIONS)) {
  test(`after a cut the guide's calls show the answer once: ai ${version}`, async () => {
    const id = unique('cut');
    let cut;
    const fetching = async (input, request) => {
      const response = await fetch(input, request);
      if (request?.method !== 'POST') return response;
      const through = new TransformStream({ start: (controller) => (cut = () => controller.error(new TypeError('network error'))) });
      void response.body.pipeTo(through.writable).catch(() => {});
      return new Response(through.readable, response);
    };
    const chat = page(version, id, { transport: { fetch: fetching } });
    const sent = chat.sendMessage({ text: 'script: tokens=120 rate=60' });
    await streamsText(chat, 20);
    cut();
    await sent;
    assert.equal(chat.status, 'error');
    assert.ok(saying(chat).length >= 20);
    if (!MAJORS.includes(version)) chat.messages = await history(id);
    await chat.resumeStream();
    assert.deepEqual(chat.messages.map(({ role }) => role), ['user', 'assistant']);
    assert.equal(chat.messages.at(-1).parts.filter(({ type }) => type === 'text').length, 1);
    assert.equal(saying(chat), numbers(120));
  });
}
const given = (transport) => ({ api: transport.api, prepareReconnectToStreamRequest: transport.prepareReconnectToStreamRequest });
