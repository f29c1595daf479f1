// What can go wrong: a gateway that is killed, a Redis that is started again, tokens that expire; and much at once.
// A line "do THING" on the output asks the test around this suite to do it; it answers in the file DONE.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { ErrorCode } from 'selfhost-transport';
import { answerOf, connect, endOf, join, read, said, sleep, speaking, textOf, transcript, unique, until, words } from './support.mjs';

const LONG = process.env.SELFHOST_TRANSPORT_LONG === '1';
const patient = { disconnectedRetryTimeout: 200, suspendedRetryTimeout: 200, connectionStateTtl: 60_000 };
let asked = 0;

/** Have something done to the processes. */
async function have(thing) {
  asked += 1;
  console.log(`do ${thing} ${asked}`);
  while (!existsSync(`${process.env.DONE}/${asked}`)) await sleep(20);
}

/** Nothing is active, and a message gets its answer. */
async function isWell(member) {
  const turn = await member.transport.view.send(words(5));
  assert.equal((await read(turn.stream)).text, said(5));
  await member.transport.waitForTurn({ all: true });
  assert.equal(member.transport.tree.getActiveTurnIds().size, 0);
}

/** All clients, and one that joins now, see the same. */
async function agree(members) {
  const late = await lateComer(members[0]);
  for (const member of members) assert.deepEqual(transcript(member.transport), transcript(late.transport));
  return transcript(late.transport);
}

async function lateComer({ test: t, name }) {
  const late = member(t, 'late', name);
  await late.transport.view.loadOlder(500);
  return late;
}

function member(t, clientId, name, extra = patient) {
  return { ...join(t, clientId, name, { extra }), test: t };
}

test('a gateway that is killed in the middle of an answer', async (t) => {
  const name = unique();
  const one = member(t, 'user-1', name);
  const two = member(t, 'user-2', name);
  two.transport.view.getMessages();
  const turn = await one.transport.view.send(words(80, 50));
  await speaking(one.transport, turn.turnId);
  await have('kill-gateway');
  // What is said while no gateway is there is sent when one is.
  const second = one.transport.view.send(words(4));
  assert.ok(one.transport.tree.getActiveTurnIds().get('user-1').has(turn.turnId));
  await have('start-gateway');
  assert.equal((await read((await second).stream)).text, said(4));
  for (const each of [one, two]) {
    assert.equal((await endOf(each, turn.turnId)).reason, 'complete');
    assert.equal(answerOf(each.transport, turn.turnId), said(80));
  }
  assert.equal((await read(turn.stream)).text, said(80));
  await isWell(one);
  await two.transport.waitForTurn({ all: true });
  await agree([one, two]);
});

test('a cancel while there is no gateway', async (t) => {
  const one = member(t, 'user-1', unique());
  const turn = await one.transport.view.send(words(5000, 50));
  await speaking(one.transport, turn.turnId);
  await have('kill-gateway');
  const cancelled = one.transport.cancel();
  await have('start-gateway');
  await cancelled;
  const length = answerOf(one.transport, turn.turnId).length;
  assert.equal(one.transport.tree.getActiveTurnIds().size, 0);
  assert.equal((await endOf(one, turn.turnId)).reason, 'cancelled');
  await isWell(one);
  assert.equal(answerOf(one.transport, turn.turnId).length, length);
});

test('closing without a connection comes to an end', async (t) => {
  const one = member(t, 'user-1', unique());
  await isWell(one);
  one.client.connection.close();
  await one.client.connection.whenState('closed');
  await one.transport.close({ cancel: { own: true } });
});

test('a Redis that is started again in the middle of an answer', async (t) => {
  const name = unique();
  const one = member(t, 'user-1', name);
  const two = member(t, 'user-2', name);
  two.transport.view.getMessages();
  const turn = await one.transport.view.send(words(100, 50));
  await speaking(one.transport, turn.turnId);
  await have('restart-redis');
  const ends = await Promise.all([one, two].map((each) => endOf(each, turn.turnId)));
  assert.equal(ends[0].reason, ends[1].reason);
  if (ends[0].reason === 'complete') assert.equal(answerOf(one.transport, turn.turnId), said(100));
  await isWell(one);
  await two.transport.waitForTurn({ all: true });
  await agree([one, two]);
});

test('tokens that expire while an answer is said', { concurrency: true }, async (t) => {
  const name = unique();
  const issuer = connect(t, undefined);
  let tokens = 0;
  const authCallback = (params, callback) => {
    tokens += 1;
    issuer.auth.createTokenRequest({ ...params, clientId: 'user-1', ttl: 1200 }).then((request) => callback(null, request), (error) => callback(error, null));
  };
  const one = member(t, 'user-1', name, { ...patient, key: undefined, authCallback });
  const turn = await one.transport.view.send(words(90, 40));
  assert.equal((await read(turn.stream)).text, said(90));
  assert.ok(tokens > 1, `${tokens} tokens`);
  assert.deepEqual(one.errors, []);
  await isWell(one);
});

test('ten tabs of one person', async (t) => {
  const name = unique();
  const tabs = Array.from({ length: 10 }, () => member(t, 'user-1', name));
  for (const tab of tabs) tab.transport.view.getMessages();
  await Promise.all(tabs.map((tab) => tab.channel.whenState('attached')));
  const turn = await tabs[0].transport.view.send(words(5000, 50));
  await Promise.all(tabs.map((tab) => speaking(tab.transport, turn.turnId)));
  await tabs[7].transport.cancel();
  await Promise.all(tabs.map((tab) => endOf(tab, turn.turnId)));
  for (const tab of tabs) assert.equal(tab.transport.tree.getActiveTurnIds().size, 0);
  // All of them stop everything at once, and then all speak at once.
  await tabs[3].transport.view.send(words(5000, 50));
  await Promise.all(tabs.map((tab) => tab.transport.cancel()));
  const turns = await Promise.all(tabs.map((tab, index) => tab.transport.view.send(words(index + 1))));
  await Promise.all(tabs.map((tab) => tab.transport.waitForTurn({ all: true })));
  assert.equal(new Set(turns.map((one) => one.turnId)).size, 10);
  for (const [index, one] of turns.entries()) assert.equal((await read(one.stream)).text, said(index + 1));
  for (const tab of tabs) for (const one of turns) assert.ok(tab.transport.tree.getNode(one.optimisticMsgIds[0]));
});

test('a long conversation, loaded page by page', async (t) => {
  const count = LONG ? 200 : 40;
  const one = member(t, 'user-1', unique());
  for (let index = 0; index < count; index += 1) await read((await one.transport.view.send({ role: 'user', content: `script: tokens=3 rate=0 say=answer ${index}` })).stream);
  const late = member(t, 'user-2', one.name);
  const began = performance.now();
  await late.transport.view.loadOlder(30);
  const first = performance.now() - began;
  assert.ok(late.transport.view.getMessages().length >= 30);
  while (late.transport.view.hasOlder()) await late.transport.view.loadOlder(30);
  const messages = late.transport.view.getMessages();
  assert.equal(messages.length, 2 * count);
  assert.equal(new Set(messages.map((message) => message.id)).size, messages.length);
  assert.deepEqual(transcript(late.transport), transcript(one.transport));
  messages.forEach((message, index) => assert.equal(message.role, ['user', 'assistant'][index % 2]));
  assert.match(textOf(messages[0]), /answer 0$/);
  t.diagnostic(`${count} turns; the first page in ${first.toFixed(0)} ms`);
});

test('a refusal that may have been none: what arrived is shown once', async (t) => {
  const one = member(t, 'user-1', unique(), { ...patient, queueMessages: false });
  await isWell(one);
  const gone = one.client.connection.whenState('disconnected');
  one.client.connection.connectionManager.activeProtocol.getTransport().wsConnection.close();
  await gone;
  await assert.rejects(one.transport.view.send({ role: 'user', content: 'lost?' }), (error) => error.code === ErrorCode.TransportSendFailed);
  await one.client.connection.whenState('connected');
  assert.equal(one.transport.tree.getActiveTurnIds().size, 0);
  const shown = one.transport.view.flattenNodes().filter((node) => textOf(node.message) === 'lost?');
  assert.deepEqual(shown.map((node) => node.serial), [undefined]);
  await isWell(one);
  await until(one.transport, 'the order', () => transcript(one.transport).map(([, text]) => text).indexOf('lost?') === 2);
});
