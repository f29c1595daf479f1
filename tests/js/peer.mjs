// An agent and a reader of the JS SDK for tests in another language. One JSON command per line on stdin:
//   {"do":"answer","invocation":{…},"tokens":n,"pause":ms}   open a run and stream the numbered words
//   {"do":"read","older":n}                                  load n older messages, print what a JS client's view shows
//   {"do":"stop","run":"…"}                                  cancel a run
//   {"do":"send","text":"…"}                                 send a user's message
//   {"do":"edit","id":"…","text":"…"}                        send another one in place of one
//   {"do":"regenerate","id":"…"}                             ask for another answer in place of one
// Answers are JSON lines on stdout.
import { createInterface } from 'node:readline';
import { Invocation } from '@ably/ai-transport';
import { createAgentSession, createClientSession, createUIMessageCodec } from '@ably/ai-transport/vercel';
import * as Ably from 'ably';

const { PORT, KEY, SESSION } = process.env;

function client(clientId) {
  return new Ably.Realtime({
    key: KEY, clientId, endpoint: '127.0.0.1', port: Number(PORT), tls: false, disableConnectivityCheck: true,
  });
}

async function* numbered(n, pause, signal) {
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

const say = (value) => console.log(JSON.stringify(value));
const agent = createAgentSession({ client: client('js-agent'), channelName: SESSION });
await agent.connect();
const reader = createClientSession({ client: client('js-reader'), channelName: SESSION });
await reader.connect();
console.log('ready peer');

async function answer({ invocation, tokens, pause }) {
  const run = agent.createRun(Invocation.fromJSON(invocation));
  await run.start();
  say({ started: run.runId });
  const { reason } = await run.pipe(numbered(tokens, pause, run.abortSignal));
  await run.end({ reason });
  say({ ended: run.runId, reason });
}

async function read({ older = 100 }) {
  await reader.view.loadOlder(older);
  say({
    ids: reader.view.getMessages().map(({ codecMessageId }) => codecMessageId),
    messages: reader.view.getMessages().map(({ message }) => ({
      role: message.role,
      text: message.parts.filter((part) => part.type === 'text').map((part) => part.text).join(''),
    })),
    runs: reader.view.runs().map(({ runId, status, clientId, steps }) => ({ runId, status, clientId, steps })),
  });
}

async function stop({ run }) {
  await reader.cancel(run);
  say({ stopped: run });
}

function asked(text) {
  const message = { id: crypto.randomUUID(), role: 'user', parts: [{ type: 'text', text }] };
  return createUIMessageCodec().createUserMessage(message);
}

async function send({ text }) {
  const run = await reader.view.send(asked(text));
  say({ sent: run.inputCodecMessageId });
}

async function edit({ id, text }) {
  const run = await reader.view.edit(id, asked(text));
  say({ sent: run.inputCodecMessageId });
}

async function regenerate({ id }) {
  const run = await reader.view.regenerate(id);
  say({ sent: run.inputCodecMessageId });
}

const commands = { answer, read, stop, send, edit, regenerate };
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  commands[command.do](command).catch((error) => say({ error: String(error) }));
}
process.exit(0);
