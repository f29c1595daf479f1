// The published clients of four front ends in one session, for a test in another language: `useChat`'s chat class, AG-UI's
// client, OpenAI's client, and a session of the JS SDK. One JSON command per line on stdin; answers are JSON lines.
//   {"do":"ask","by":"chat","text":"…"}                   send a message; its turn, once that has said something or waits
//   {"do":"follow","turn":"…","by":"chat"}                all others follow the turn; `seen`, once all have some of its text
//   {"do":"cancel","by":"chat","turn":"…"}                end it
//   {"do":"answer","by":"chat","turn":"…","what":"tool"}  answer its open call, or allow it
//   {"do":"shown","turn":"…"}                             what each shows of it, once all of their streams have ended
import { createInterface } from 'node:readline';
import { HttpAgent } from '@ag-ui/client';
import { createClientSession, createUIMessageCodec } from '@ably/ai-transport/vercel';
import * as Ably from 'ably';
import OpenAI from 'openai7';
import { as, base, chatOf, historyOf, holds } from './front-ends.mjs';
import { KEY, PORTS, textOf } from './support.mjs';

const { SESSION } = process.env;
const USER = 'user-1';
const say = (value) => console.log(JSON.stringify(value));
const codec = createUIMessageCodec();
const responseId = (turn, number = 0) => `resp_${Buffer.from([turn, number, SESSION].join('\0')).toString('base64url')}`;
const post = (path, body) => fetch(`${base(1)}${path}`, { method: 'POST', headers: { ...as(USER), 'content-type': 'application/json' }, body: JSON.stringify(body) });

const ably = new Ably.Realtime({ key: KEY, clientId: USER, endpoint: '127.0.0.1', port: PORTS[1], tls: false, disableConnectivityCheck: true });
const session = createClientSession({ client: ably, channelName: SESSION });
await session.connect();

class Agent extends HttpAgent {
  connect(input) {
    return new HttpAgent({ url: `${this.url}/connect`, headers: this.headers }).run(input);
  }
}
const agent = () => {
  const made = new Agent({ url: `${base(1)}/v1/agui`, threadId: SESSION, headers: as(USER) });
  made.seen = [];
  made.subscribe({ onEvent: ({ event }) => void made.seen.push(event) });
  return made;
};
const openai = new OpenAI({ baseURL: `${base(0)}/v1`, apiKey: KEY, defaultHeaders: { 'x-ably-clientid': as(USER)['x-ably-clientid'] } });

// What each shows now: `{text(), status(), ended}`.
const shows = {};
const partOf = (message) => message.parts.find(({ toolCallId }) => toolCallId);
const isOver = new Set(['complete', 'cancelled', 'error']);
const ablyShows = (turn) => ({
  text: () => session.view.getMessages().filter(({ codecMessageId, message }) => message.role === 'assistant' && session.view.runOf(codecMessageId)?.runId === turn).map(({ message }) => textOf(message)).join(''),
  status: () => session.tree.getRunNode(turn)?.state.status,
  ended: () => holds(() => isOver.has(session.tree.getRunNode(turn)?.state.status)),
});
const watch = async (stream, found = { events: [] }) => {
  for await (const event of stream) found.events.push(event);
};
const lastAnswer = (chat) => chat.messages.findLast(({ role }) => role === 'assistant') ?? { parts: [] };
const chatShows = (chat, running) => ({ text: () => textOf(lastAnswer(chat)), status: () => lastAnswer(chat).metadata?.status ?? chat.status, ended: () => running });
const aguiShows = (made, running) => ({
  text: () => made.messages.filter(({ role }) => role === 'assistant').map(({ content }) => content ?? '').join(''),
  status: () => made.seen.at(-1)?.outcome?.type ?? made.seen.at(-1)?.type,
  ended: () => running,
});
const responseShows = (found, running) => ({
  text: () => found.events.filter(({ type }) => type === 'response.output_text.delta').map(({ delta }) => delta).join(''),
  status: () => found.events.at(-1)?.response?.status,
  ended: () => running,
});

const asking = {
  async chat(text) {
    const chat = chatOf('7', SESSION, { gateway: 0, clientId: USER });
    shows.chat = chatShows(chat, chat.sendMessage({ text }));
    await holds(() => lastAnswer(chat).metadata?.turnId);
    return lastAnswer(chat).metadata.turnId;
  },
  async agui(text) {
    const made = agent();
    made.addMessage({ id: crypto.randomUUID(), role: 'user', content: text });
    shows.agui = aguiShows(made, made.runAgent());
    await holds(() => made.seen[0]?.metadata?.turnId);
    return made.seen[0].metadata.turnId;
  },
  async responses(text) {
    const found = { events: [] };
    const stream = await openai.responses.create({ model: 'assistant', conversation: SESSION, input: text, stream: true });
    shows.responses = responseShows(found, watch(stream, found));
    await holds(() => found.events.length);
    return Buffer.from(found.events[0].response.id.slice(5), 'base64url').toString().split('\0')[0];
  },
  async ably(text) {
    const run = await session.view.send(codec.createUserMessage({ id: crypto.randomUUID(), role: 'user', parts: [{ type: 'text', text }] }));
    await holds(() => session.tree.getRunNode(run.runId));
    shows.ably = ablyShows(run.runId);
    return run.runId;
  },
};

const following = {
  async chat() {
    const chat = chatOf('7', SESSION, { gateway: 1, clientId: USER, messages: await historyOf(SESSION) });
    shows.chat = chatShows(chat, chat.resumeStream());
  },
  async agui() {
    const made = agent();
    shows.agui = aguiShows(made, made.connectAgent());
  },
  async responses(turn) {
    const found = { events: [] };
    shows.responses = responseShows(found, watch(await openai.responses.retrieve(responseId(turn), { stream: true }), found));
  },
  async ably(turn) {
    shows.ably = ablyShows(turn);
  },
};

const cancelling = {
  chat: () => post(`/api/chat/${encodeURIComponent(SESSION)}/stop`, {}),
  agui: () => post('/v1/agui/stop', { threadId: SESSION }),
  responses: (turn) => openai.responses.cancel(responseId(turn)),
  ably: (turn) => session.cancel(turn),
};

const answering = {
  async chat(what) {
    const chat = chatOf('7', SESSION, { gateway: 1, clientId: USER, messages: await historyOf(SESSION) });
    const part = partOf(chat.messages.at(-1));
    if (what === 'tool') await chat.addToolOutput({ tool: 'lookup', toolCallId: part.toolCallId, output: { sky: 'clear' } });
    else await chat.addToolApprovalResponse({ id: part.approval.id, approved: true });
    await chat.sendMessage();
    if (chat.error) throw chat.error;
  },
  async agui(what) {
    const made = agent();
    await made.connectAgent();
    const { outcome } = made.seen.at(-1);
    if (what === 'tool') {
      made.addMessage({ id: crypto.randomUUID(), role: 'tool', toolCallId: outcome.pendingToolCallIds[0], content: '{"sky":"clear"}' });
      return made.runAgent();
    }
    return made.runAgent({ resume: [{ interruptId: outcome.interrupts[0].id, status: 'resolved' }] });
  },
  async responses(what, turn) {
    const previous = await openai.responses.retrieve(responseId(turn));
    const find = (kind) => previous.output.find(({ type }) => type === kind);
    const input = what === 'tool'
      ? { type: 'function_call_output', call_id: find('function_call').call_id, output: '{"sky":"clear"}' }
      : { type: 'mcp_approval_response', approval_request_id: find('mcp_approval_request').id, approve: true };
    return openai.responses.create({ previous_response_id: previous.id, input: [input] });
  },
  async ably(what, turn) {
    const asked = () => session.view.getMessages().find(({ message }) => message.role === 'assistant' && partOf(message));
    await holds(() => asked() && session.tree.getRunNode(turn)?.state.status === 'suspended');
    const { codecMessageId, message } = asked();
    const { toolCallId } = partOf(message);
    const given = what === 'tool'
      ? codec.createToolResult(codecMessageId, { toolCallId, output: { sky: 'clear' } })
      : codec.createToolApprovalResponse(codecMessageId, { toolCallId, approved: true });
    return session.view.send([given], { runId: turn });
  },
};

const commands = {
  async ask({ by, text }) {
    say({ asked: await asking[by](text) });
  },
  async follow({ turn, by }) {
    await Promise.all(Object.keys(following).filter((name) => name !== by).map((name) => following[name](turn)));
    await holds(() => Object.values(shows).every((one) => one.text().length > 20));
    say({ seen: Object.keys(shows) });
  },
  async cancel({ by, turn }) {
    await cancelling[by](turn);
    say({ cancelled: by });
  },
  async answer({ by, what, turn }) {
    await answering[by](what, turn);
    say({ answered: by });
  },
  async shown() {
    await Promise.all(Object.values(shows).map((one) => one.ended()));
    say({ shown: Object.fromEntries(Object.entries(shows).map(([name, one]) => [name, { text: one.text(), status: one.status() }])) });
  },
};
console.log('ready peer');
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  commands[command.do](command).catch((error) => say({ error: String(error?.stack ?? error) }));
}
process.exit(0);
