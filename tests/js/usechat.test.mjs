// The core of `useChat` (AI SDK 7) on the SDK's ChatTransport, without a DOM, against the Python worker.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createChatTransport } from '@ably/ai-transport/vercel';
import {
  AbstractChat,
  isToolUIPart,
  lastAssistantMessageIsCompleteWithApprovalResponses,
  lastAssistantMessageIsCompleteWithToolCalls,
} from 'ai';
import { PORTS, ended, join, said, seen, textOf, tokens, transcript, unique, until } from './support.mjs';

/** `AbstractChat` wants a state to write to; this one notifies its listeners. */
class PlainState {
  #status = 'ready';
  #messages = [];
  error = undefined;
  listeners = new Set();

  get status() {
    return this.#status;
  }
  set status(status) {
    this.#status = status;
    this.#notify();
  }
  get messages() {
    return this.#messages;
  }
  set messages(messages) {
    this.#messages = messages;
    this.#notify();
  }
  pushMessage = (message) => {
    this.messages = [...this.#messages, message];
  };
  popMessage = () => {
    this.messages = this.#messages.slice(0, -1);
  };
  replaceMessage = (index, message) => {
    this.messages = this.#messages.with(index, message);
  };
  snapshot = (thing) => structuredClone(thing);
  #notify() {
    for (const listener of [...this.listeners]) listener();
  }
}

class PlainChat extends AbstractChat {
  constructor(transport, init) {
    const state = new PlainState();
    super({ id: 'chat', transport, state, ...init });
    this.plain = state;
  }

  becomes(what, condition) {
    const subscribe = (check) => {
      this.plain.listeners.add(check);
      return () => this.plain.listeners.delete(check);
    };
    const describe = () => ({ status: this.status, error: String(this.error), messages: this.messages });
    return until(`useChat: ${what}`, subscribe, condition, { describe });
  }

  /** The newest tool call of the newest message. */
  get call() {
    return this.lastMessage?.parts.findLast(isToolUIPart);
  }

  get answer() {
    return this.lastMessage?.role === 'assistant' ? textOf(this.lastMessage) : '';
  }
}

async function chatOf(t, clientId, name, gateway = 0, init = {}) {
  const member = await join(t, clientId, name, { gateway });
  const api = `http://127.0.0.1:${PORTS[gateway % PORTS.length]}/api/chat`;
  const transport = createChatTransport(member.session, { api });
  t.after(() => transport.close());
  return { member, chat: new PlainChat(transport, init) };
}

/** Wait until everything published so far is acknowledged: `stop()` leaves its cancel to itself. */
function answered(member) {
  return member.client.channels.get(member.channelName).publish('done');
}

test('send', async (t) => {
  const { member, chat } = await chatOf(t, 'alice', unique());
  await chat.sendMessage({ text: 'script: tokens=50 rate=200' });
  assert.equal(chat.error, undefined);
  assert.equal(chat.status, 'ready');
  assert.equal(chat.answer, tokens(50));
  // The ids agree between useChat's own list and the session's view, or the two could not be joined.
  const shown = member.view.getMessages().map(({ message }) => message.id);
  assert.deepEqual(chat.messages.map((message) => message.id), shown);
});

test('it streams', async (t) => {
  const { chat } = await chatOf(t, 'alice', unique());
  const lengths = new Set();
  chat.plain.listeners.add(() => lengths.add(chat.answer.length));
  await chat.sendMessage({ text: 'script: tokens=60 rate=100' });
  assert.ok(lengths.size > 5, `seen in ${lengths.size} chunks`);
});

test('stop', async (t) => {
  const { member, chat } = await chatOf(t, 'alice', unique());
  const sending = chat.sendMessage({ text: 'script: tokens=5000 rate=50' });
  await chat.becomes('some words', () => chat.answer.length > 10);
  await chat.stop();
  await sending;
  assert.equal(chat.status, 'ready');
  assert.equal(chat.error, undefined);
  const [run] = member.view.runs();
  await ended(member, run.runId, 'cancelled');
  assert.ok(tokens(5000).startsWith(chat.answer));
  await answered(member);
});

test('stop, then send again', async (t) => {
  const { member, chat } = await chatOf(t, 'alice', unique());
  const sending = chat.sendMessage({ text: 'script: tokens=5000 rate=50' });
  await chat.becomes('some words', () => chat.answer.length > 10);
  await chat.stop();
  await sending;
  await chat.sendMessage({ text: 'script: tokens=20 rate=200' });
  assert.equal(chat.answer, tokens(20));
  await seen(member, 'both ends', () => member.view.runs().map((run) => run.status).join() === 'cancelled,complete');
});

test('regenerate', async (t) => {
  const { member, chat } = await chatOf(t, 'alice', unique());
  await chat.sendMessage({ text: 'script: tokens=15 rate=200' });
  const first = chat.lastMessage.id;
  await chat.regenerate({ messageId: first });
  assert.equal(chat.error, undefined);
  assert.equal(chat.answer, tokens(15));
  const [, shown] = member.view.getMessages();
  assert.equal(member.view.branchSelection(shown.codecMessageId).siblings.length, 2);
});

test('several messages, each answered', async (t) => {
  const { member, chat } = await chatOf(t, 'alice', unique());
  for (const n of [5, 6, 7]) {
    await chat.sendMessage({ text: `script: tokens=${n} rate=0` });
    assert.equal(chat.answer, tokens(n));
  }
  assert.deepEqual(transcript(member).filter(([role]) => role === 'assistant').map(([, text]) => text), [5, 6, 7].map(tokens));
});

test('nothing of a fast agent is missed, however busy the gateway', async (t) => {
  const chats = await Promise.all(Array.from({ length: 4 }, (_, index) => chatOf(t, 'alice', unique(), index)));
  await Promise.all(
    chats.map(async ({ member, chat }) => {
      for (let n = 1; n <= 15; n += 1) {
        await chat.sendMessage({ text: `script: tokens=${n} rate=0` });
        assert.equal(chat.error, undefined);
        assert.equal(chat.answer, tokens(n));
        assert.equal(chat.lastMessage.id, member.view.getMessages().at(-1).message.id);
      }
    }),
  );
});

test('DEV-10 another tab shows the turn as it streams', async (t) => {
  const name = unique();
  const { member, chat } = await chatOf(t, 'alice', name);
  const { member: other } = await chatOf(t, 'bob', name, 1);
  const sending = chat.sendMessage({ text: 'script: tokens=60 rate=100' });
  await seen(other, 'words', () => other.view.runs().some((run) => said(other, run.runId).length > 10));
  await sending;
  const [run] = member.view.runs();
  await ended(other, run.runId, 'complete');
  assert.deepEqual(transcript(other), transcript(member));
});

/** What the session's view shows of the newest tool call, and all text after the question. */
function outcome(member) {
  const messages = member.view.getMessages().map(({ message }) => message);
  const call = messages.flatMap((message) => message.parts.filter(isToolUIPart)).at(-1);
  const text = messages.filter((message) => message.role === 'assistant').map(textOf).join('');
  return { state: call?.state, output: call?.output, text };
}

function allComplete(member) {
  return seen(member, 'all turns complete', () => member.view.runs().every((run) => run.status === 'complete'));
}

test('a tool of the agent', async (t) => {
  const { member, chat } = await chatOf(t, 'alice', unique());
  await chat.sendMessage({ text: 'script: tool=server tokens=5 rate=0' });
  assert.equal(chat.error, undefined);
  assert.equal(chat.call.state, 'output-available');
  assert.equal(chat.answer, tokens(5));
  await allComplete(member);
  assert.deepEqual(outcome(member), { state: 'output-available', output: chat.call.output, text: tokens(5) });
});

for (const approved of [true, false]) {
  test(`a tool that needs consent: ${approved ? 'allowed' : 'denied'}`, async (t) => {
    const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses;
    const { member, chat } = await chatOf(t, 'alice', unique(), 0, { sendAutomaticallyWhen });
    await chat.sendMessage({ text: 'script: approve=1 tokens=5 rate=0' });
    assert.equal(chat.call.state, 'approval-requested');
    const [run] = member.view.runs();
    await seen(member, 'the turn waits', () => member.view.run(run.runId).status === 'suspended');
    await chat.addToolApprovalResponse({ id: chat.call.approval.id, approved });
    await ended(member, run.runId, 'complete');
    const { state, text } = outcome(member);
    assert.deepEqual([state, text], [approved ? 'output-available' : 'output-denied', tokens(5)]);
    assert.equal(member.view.runs().length, 1);
    await answered(member);
  });
}

test('a tool of the client', async (t) => {
  const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithToolCalls;
  const { member, chat } = await chatOf(t, 'alice', unique(), 0, { sendAutomaticallyWhen });
  await chat.sendMessage({ text: 'script: tool=client tokens=5 rate=0' });
  assert.equal(chat.call.state, 'input-available');
  const { toolCallId, type } = chat.call;
  await chat.addToolOutput({ tool: type.slice('tool-'.length), toolCallId, output: { answer: 42 } });
  await seen(member, 'the rest of the answer', () => outcome(member).text === tokens(5));
  await allComplete(member);
  assert.deepEqual(outcome(member), { state: 'output-available', output: { answer: 42 }, text: tokens(5) });
  await answered(member);
});

test('a failing model is an error in useChat', async (t) => {
  const { chat } = await chatOf(t, 'alice', unique());
  await chat.sendMessage({ text: 'script: tokens=10 rate=0 fail_at=3 always=1' });
  assert.equal(chat.status, 'error');
  assert.match(chat.error.message, /failed at token 3/);
});
