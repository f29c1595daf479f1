// Pages of plain `useChat` as React renders them, in both majors; and the transport of `@ai-sdk/workflow`.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WorkflowChatTransport } from '@ai-sdk/workflow/client';
import * as react7 from '@ai-sdk/react';
import * as react6 from 'ai-react6';
import { StrictMode, act, createElement as h } from 'react';
import { create } from 'react-test-renderer';
import { VERSIONS, as, base, chatOf, cuttingFetch, historyOf, holds } from './front-ends.mjs';
import { textOf, tokens, unique } from './support.mjs';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
const REACT = { 7: react7, 6: react6 };

/** A mounted page; `shown` is what its hook gave last, `requests` what it asked. */
async function mounted(version, id, { messages, strict = false, gateway = 0, ...options } = {}) {
  const { useChat } = REACT[version];
  const page = { requests: [], shown: undefined };
  const recording = (address, request = {}) => {
    page.requests.push(`${request.method ?? 'GET'} ${new URL(address).pathname}`);
    return fetch(address, request);
  };
  const transport = new VERSIONS[version].DefaultChatTransport({ api: `${base(gateway)}/api/chat`, headers: as('user-1'), fetch: recording });
  function Page() {
    page.shown = useChat({ id, messages: messages ?? [], transport, ...options });
    return null;
  }
  await act(async () => {
    page.renderer = create(strict ? h(StrictMode, null, h(Page)) : h(Page));
  });
  page.unmount = () => act(async () => page.renderer.unmount());
  page.becomes = (condition) => holds(async () => (await act(async () => new Promise((resolve) => setTimeout(resolve, 5))), condition(page.shown)));
  return page;
}
const saying = ({ messages }) => textOf(messages.at(-1));
const answers = ({ messages }) => messages.filter(({ role }) => role === 'assistant');

for (const version of ['7', '6']) {
  test(`UIM-6, UIM-14, UIM-15 (${version}): a component that goes and comes back, under StrictMode; a second tab`, async () => {
    const id = unique();
    const first = await mounted(version, id);
    await act(async () => void first.shown.sendMessage({ text: 'script: tokens=150 rate=60' }));
    await first.becomes((shown) => answers(shown).length === 1 && saying(shown).length > 20);
    // Another page of the application is shown: version 7 aborts the request, which cancels nothing.
    await first.unmount();
    const back = await mounted(version, id, { messages: await historyOf(id), resume: true, strict: true });
    await back.becomes((shown) => answers(shown).length === 1 && saying(shown).length > 40);
    // StrictMode mounts twice, and the hook may ask twice; it shows one answer.
    assert.deepEqual([...new Set(back.requests)], [`GET /api/chat/${encodeURIComponent(id)}/stream`]);
    const second = await mounted(version, id, { messages: await historyOf(id), resume: true, gateway: 1 });
    for (const page of [back, second]) {
      await page.becomes((shown) => shown.status === 'ready' && saying(shown) === tokens(150));
      assert.equal(answers(page.shown).length, 1);
      assert.equal(page.shown.messages.length, 2);
    }
    // Live, with the lines of docs/front-ends.md: what begins elsewhere is taken up.
    await act(async () => void back.shown.sendMessage({ text: 'script: tokens=60 rate=60' }));
    await back.becomes((shown) => shown.messages.length === 4 && saying(shown).length > 10);
    const messages = await historyOf(id);
    await act(async () => {
      second.shown.setMessages(messages);
      void second.shown.resumeStream();
    });
    for (const page of [back, second]) {
      await page.becomes((shown) => shown.status === 'ready' && shown.messages.length === 4 && saying(shown) === tokens(60));
      await page.unmount();
    }
    assert.deepEqual(second.shown.messages.map((message) => message.id), back.shown.messages.map((message) => message.id));
  });

  test(`UIM-29, UIM-30 (${version}): parts of every kind arrive, replace each other by id, and survive a reload`, async () => {
    const id = unique('parts');
    const heard = [];
    const chat = chatOf(version, id, { onData: (part) => void heard.push(part) });
    const sending = chat.sendMessage({ text: 'go' });
    await holds(() => heard.length >= 3);
    const late = [];
    const reloaded = chatOf(version, id, { messages: await historyOf(id), gateway: 1, onData: (part) => void late.push(part) });
    await Promise.all([sending, reloaded.resumeStream()]);
    const stored = (await historyOf(id)).at(-1);
    for (const message of [chat.messages.at(-1), reloaded.messages.at(-1), stored]) {
      const of = (type) => message.parts.filter((part) => part.type === type);
      assert.deepEqual(of('data-progress').map(({ data }) => data), [{ done: 2 }]);
      assert.deepEqual(of('data-passing'), []);
      assert.equal(of('source-url')[0].url, 'https://example.com/');
      assert.equal(of('file')[0].mediaType, 'image/png');
      assert.equal(of('reasoning')[0].text, 'hm');
      assert.equal(message.metadata.model, 'scripted');
    }
    assert.deepEqual(heard.map(({ type }) => type), ['data-passing', 'data-progress', 'data-progress']);
    // What passed before the reload does not come again.
    assert.ok(!late.some(({ type }) => type === 'data-passing'));
  });
}

test('UIM-37: WorkflowChatTransport, cut again and again, asks for the chunks that it has not seen', async (t) => {
  t.mock.method(console, 'error', () => {});
  const id = unique();
  const fetching = cuttingFetch(() => (fetching.record.cuts < 6 ? 300 + Math.floor(Math.random() * 1500) : Infinity), { quietly: true });
  const authorised = (address, request = {}) => fetching(address, { ...request, headers: { ...request.headers, ...as('user-1') } });
  const transport = new WorkflowChatTransport({ api: `${base()}/v1/workflow/${encodeURIComponent(id)}`, fetch: authorised });
  const chat = chatOf('7', id, { transport });
  await chat.sendMessage({ text: 'script: reasoning=5 tool=server tokens=80 rate=120' });
  assert.equal(chat.error, undefined);
  assert.ok(fetching.record.cuts > 2, `${fetching.record.cuts} cuts`);
  const [, answer] = chat.messages;
  assert.equal(textOf(answer), tokens(80));
  const kinds = (message) => message.parts.map(({ type, text, output }) => [type, text, output]);
  assert.deepEqual(kinds(answer), kinds((await historyOf(id))[1]));
  assert.equal(chat.messages.length, 2);
  // Nothing runs: on mount it gets an end, not an error.
  const again = chatOf('7', id, { messages: await historyOf(id), transport });
  await again.resumeStream();
  assert.equal(again.messages.length, 2);
  assert.equal(again.error, undefined);
  // A failure ends it as well, and does not make it ask forever.
  await chat.sendMessage({ text: 'script: tokens=9 fail_at=3 always=1' });
  assert.equal(chat.status, 'error');
});

test('UIM-37: a tail is counted from the end, and a stopped answer ends', async (t) => {
  t.mock.method(console, 'error', () => {});
  const id = unique();
  const authorised = (address, request = {}) => fetch(address, { ...request, headers: { ...request.headers, ...as('user-1') } });
  const transport = new WorkflowChatTransport({ api: `${base()}/v1/workflow/${encodeURIComponent(id)}`, fetch: authorised });
  const chat = chatOf('7', id, { transport });
  const sending = chat.sendMessage({ text: 'script: tokens=3000 rate=50' });
  await holds(() => chat.messages.length === 2 && saying(chat).length > 30);
  const { turnId } = chat.messages[1].metadata;
  const address = `${base(1)}/v1/workflow/${encodeURIComponent(id)}/${turnId}/stream?startIndex=-3`;
  const tail = await fetch(address, { headers: as('user-1') });
  assert.equal(tail.headers.get('x-workflow-run-id'), turnId);
  assert.ok(Number(tail.headers.get('x-workflow-stream-tail-index')) > 10);
  await fetch(`${base()}/v1/ui/${encodeURIComponent(id)}/stop`, { method: 'POST', headers: as('user-1') });
  const lines = (await tail.text()).split('\n').filter((line) => line.startsWith('data: {'));
  assert.equal(JSON.parse(lines[0].slice(6)).type, 'text-delta');
  assert.equal(JSON.parse(lines.at(-1).slice(6)).type, 'finish');
  await sending;
  assert.equal(chat.status, 'ready');
  assert.equal(saying(chat), textOf((await historyOf(id))[1]));
});
