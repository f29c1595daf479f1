// Turns of the Python worker as clients with the SDK's OpenAI Responses codec see them.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createClientSession } from '@ably/ai-transport';
import { ResponsesCodec, toResponsesInput } from '@ably/ai-transport/openai';
import { begun, connect, ended, seen, tokens, unique } from './support.mjs';

async function join(t, clientId, channelName) {
  const client = connect(t, clientId);
  const session = createClientSession({ client, channelName, codec: ResponsesCodec });
  const errors = [];
  session.on('error', (error) => errors.push(error));
  await session.connect();
  return { client, session, view: session.view, tree: session.tree, clientId, errors };
}

function question(text) {
  const item = { type: 'message', role: 'user', content: [{ type: 'input_text', text }] };
  return ResponsesCodec.createUserMessage({ role: 'user', items: [item] });
}

async function startTurn(member, text) {
  return begun(await member.view.send(question(text)));
}

function answers(member) {
  return member.view.getMessages().filter(({ message }) => message.role === 'assistant');
}

function items(member, type) {
  return answers(member).flatMap(({ message }) => message.items.filter((item) => item.type === type));
}

function textOf(member) {
  return items(member, 'message').flatMap((item) => item.content.map((part) => part.text)).join('');
}

/** The last answer of the view, once it says that it waits for someone about a call. */
async function waiting(member, run) {
  await ended(member, run.runId, 'suspended');
  const call = items(member, 'function_call').at(-1);
  const { codecMessageId } = answers(member).find(({ message }) => message.items.includes(call));
  return { codecMessageId, callId: call.call_id, call };
}

test('text streams as an output message', async (t) => {
  const alice = await join(t, 'alice', unique());
  const run = await startTurn(alice, 'script: tokens=30 rate=200');
  await ended(alice, run.runId, 'complete');
  assert.equal(textOf(alice), tokens(30));
  const [message] = items(alice, 'message');
  assert.deepEqual([message.role, message.status, message.content.length], ['assistant', 'completed', 1]);
  assert.deepEqual(alice.errors, []);
});

test('reasoning and a tool of the agent become items that the API takes back', async (t) => {
  const name = unique();
  const alice = await join(t, 'alice', name);
  const run = await startTurn(alice, 'script: tokens=3 rate=0 reasoning=4 tool=server');
  await ended(alice, run.runId, 'complete');
  const input = toResponsesInput(alice.view.getMessages().map(({ message }) => message));
  assert.deepEqual(
    input.map((item) => item.type),
    ['message', 'reasoning', 'function_call', 'function_call_output', 'message'],
  );
  assert.equal(input[1].summary[0].text, 'r0 r1 r2 r3 ');
  assert.deepEqual(JSON.parse(input[2].arguments), { query: 'the scripted question' });
  assert.deepEqual(JSON.parse(input[3].output), { answer: 'what is known of the scripted question' });
  const late = await join(t, 'bob', name);
  await late.view.loadOlder(50);
  assert.deepEqual(late.view.getMessages(), alice.view.getMessages());
});

test('a tool of the client: the result resumes the turn', async (t) => {
  const alice = await join(t, 'alice', unique());
  const run = await startTurn(alice, 'script: tokens=3 rate=0 tool=client');
  const { codecMessageId, callId } = await waiting(alice, run);
  const result = ResponsesCodec.createToolResult(codecMessageId, { call_id: callId, output: '{"found":true}' });
  await alice.view.send([result], { runId: run.runId });
  await ended(alice, run.runId, 'complete');
  assert.equal(items(alice, 'function_call_output')[0].output, '{"found":true}');
  assert.equal(textOf(alice), tokens(3));
});

test('an approval: asked for with the arguments, refused with a reason', async (t) => {
  const alice = await join(t, 'alice', unique());
  const run = await startTurn(alice, 'script: tokens=3 rate=0 tool=server approve=1');
  const { codecMessageId, callId, call } = await waiting(alice, run);
  const state = () => answers(alice)[0].message.toolCallStates[callId];
  assert.deepEqual(state(), { approval: 'pending', name: call.name, arguments: call.arguments });
  const refusal = { call_id: callId, approved: false, reason: 'not now' };
  await alice.view.send([ResponsesCodec.createToolApprovalResponse(codecMessageId, refusal)], { runId: run.runId });
  await ended(alice, run.runId, 'complete');
  assert.deepEqual([state().approval, state().reason], ['denied', 'not now']);
  assert.deepEqual(
    items(alice, 'function_call_output').map((item) => item.output),
    ['not now'],
  );
});

test('another answer is in the same codec, though the request for it does not tell', async (t) => {
  const alice = await join(t, 'alice', unique());
  const first = await startTurn(alice, 'script: tokens=5 rate=0');
  await ended(alice, first.runId, 'complete');
  const [{ codecMessageId }] = answers(alice);
  const again = await begun(await alice.view.regenerate(codecMessageId));
  await ended(alice, again.runId, 'complete');
  await seen(alice, 'the second answer', () => answers(alice)[0]?.codecMessageId !== codecMessageId && textOf(alice));
  assert.equal(textOf(alice), tokens(5));
});
