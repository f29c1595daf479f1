// Connections that drop at random points of turns with reasoning and tools: what a client ends up with is what one has
// that was never cut. `DROPS` says how many, for each front end.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HttpAgent } from '@ag-ui/client';
import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client';
import { VERSIONS, as, base, chatOf, cuttingFetch, historyOf, holds, several } from './front-ends.mjs';
import { tokens, unique } from './support.mjs';

const DROPS = Number(process.env.DROPS ?? 20);
const EACH = 4;
const SCRIPT = 'script: reasoning=12 tool=server tokens=90 rate=120';
const cutSomewhere = () => 1 + Math.floor(Math.random() ** 2 * 3000);
const last = (chat) => chat.messages.at(-1);

test(`plain useChat, cut ${DROPS} times: the same message as a page has that was never cut`, async (t) => {
  let cuts = 0;
  await several(() => cuts >= DROPS, async (number) => {
    const version = Object.keys(VERSIONS)[number % 4];
    const id = unique();
    const cutting = cuttingFetch(() => (cutting.record.cuts < EACH ? cutSomewhere() : Infinity));
    let chat = chatOf(version, id, { fetch: cutting });
    const sending = chat.sendMessage({ text: SCRIPT });
    await holds(async () => (await historyOf(id)).length > 0);
    const whole = await reloaded(version, id, 1, fetch);
    const following = whole.resumeStream();
    await sending;
    for (let gateway = 1; chat.status === 'error'; gateway += 1) {
      chat = await reloaded(version, id, gateway, cutting);
      await chat.resumeStream();
    }
    cuts += cutting.record.cuts;
    await following;
    assert.equal(whole.error, undefined);
    assert.equal(chat.messages.length, 2);
    assert.equal(last(chat).id, last(whole).id);
    assert.deepEqual(content(last(chat)), content(last(whole)));
    assert.equal(last(chat).parts.filter(({ type }) => type === 'text').map(({ text }) => text).join(''), tokens(90));
    assert.deepEqual(content(last(await kept(id))), content(last(whole)));
  });
  t.diagnostic(`${cuts} cuts`);
});

/** A page that was loaded again: it finds the turn running, or ended, or ending between its two requests. */
async function reloaded(version, id, gateway, fetching) {
  const messages = await historyOf(id);
  const api = `${base(gateway)}/api/chat/${encodeURIComponent(id)}/stream?last=${messages.at(-1).id}`;
  return chatOf(version, id, { messages, fetch: fetching, transport: { prepareReconnectToStreamRequest: () => ({ api }) } });
}

const kept = async (id) => ({ messages: await historyOf(id) });
// What is stored has neither the ids of the stream nor the state of a text.
const content = ({ parts }) =>
  parts.map(({ id, ...part }) => JSON.parse(JSON.stringify(part.type === 'text' || part.type === 'reasoning' ? { ...part, state: undefined } : part)));

class Agent extends HttpAgent {
  connect(input) {
    return new HttpAgent({ url: `${this.url}/connect`, headers: this.headers, fetch: this.fetch }).run(input);
  }
}
const agent = (threadId, gateway, fetching, initialMessages = []) =>
  new Agent({ url: `${base(gateway)}/v1/agui`, threadId, headers: as('user-1'), initialMessages, fetch: fetching });
const sorted = (made) => [...made.messages].map(({ id, role, content: said, toolCalls, toolCallId }) => JSON.parse(JSON.stringify({ id, role, said: said ?? '', toolCalls, toolCallId }))).sort((a, b) => (a.id < b.id ? -1 : 1));

test(`AG-UI's client, cut ${DROPS} times, connects again with what it has: the same messages as one that was never cut`, async (t) => {
  let cuts = 0;
  await several(() => cuts >= DROPS, async () => {
    const threadId = unique();
    const cutting = cuttingFetch(() => (cutting.record.cuts < EACH ? cutSomewhere() : Infinity), { quietly: true });
    let made = agent(threadId, 0, cutting);
    made.addMessage({ id: crypto.randomUUID(), role: 'user', content: SCRIPT });
    await made.runAgent().catch(() => {});
    for (let gateway = 1; ; gateway += 1) {
      const before = cutting.record.cuts;
      made = agent(threadId, gateway, cutting, made.messages);
      await made.connectAgent().catch(() => {});
      if (cutting.record.cuts === before) break;
    }
    cuts += cutting.record.cuts;
    const whole = agent(threadId, 1, fetch);
    await whole.connectAgent();
    assert.deepEqual(sorted(made), sorted(whole));
    assert.equal(made.messages.filter(({ role }) => role === 'assistant').map(({ content: said }) => said ?? '').join(''), tokens(90));
  });
  t.diagnostic(`${cuts} cuts`);
});

test(`TanStack's client, cut ${DROPS} times in mid run, continues each time: the same messages, one turn`, async (t) => {
  let cuts = 0;
  await several(() => cuts >= DROPS, async (number) => {
    const threadId = unique();
    // It gives up after five attempts without progress: each gives a few events.
    const fetchClient = cuttingFetch(() => (fetchClient.record.cuts < EACH ? 300 + cutSomewhere() / 3 : Infinity));
    const client = new ChatClient({ threadId, connection: fetchServerSentEvents(`${base(number)}/v1/agui`, { headers: as('user-1'), fetchClient }) });
    const whole = [];
    const sending = client.sendMessage(SCRIPT);
    await holds(async () => (await historyOf(threadId)).length > 0);
    const following = agent(threadId, 1, fetch);
    await Promise.all([sending, following.connectAgent()]);
    whole.push(...following.messages.filter(({ role }) => role === 'assistant').map(({ content: said }) => said ?? ''));
    cuts += fetchClient.record.cuts;
    const parts = client.getMessages().filter(({ role }) => role === 'assistant').flatMap((message) => message.parts);
    assert.equal(parts.filter(({ type }) => type === 'text').map((part) => part.content).join(''), whole.join(''));
    assert.equal(whole.join(''), tokens(90));
    assert.equal(parts.filter(({ type }) => type === 'thinking').map((part) => part.content).join(''), Array.from({ length: 12 }, (_, index) => `r${index} `).join(''));
    assert.equal(parts.filter(({ type }) => type === 'tool-call').length, 1);
    assert.equal((await historyOf(threadId)).length, 2);
  });
  t.diagnostic(`${cuts} cuts`);
});
