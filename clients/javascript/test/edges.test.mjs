// Tools, reloads, refusals, lost connections.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCode, errorInfoIs } from 'selfhost-transport';
import { ErrorCode as SessionErrorCode } from '@ably/ai-transport';
import { snippet } from './snippets.mjs';
import { answerOf, endOf, join, read, said, speaking, unique, until, words } from './support.mjs';

const AGENT = 'assistant';
const options = { concurrency: true };
const script = (text) => ({ role: 'user', content: `script: ${text}` });

/** The part of a tool call that waits for this client, and its message. */
function waitingCall(member) {
  const find = () => member.transport.view.flattenNodes()
    .flatMap((node) => node.message.parts.map((part) => ({ node, part })))
    .find(({ part }) => part.state === 'input-available');
  return until(member.transport, 'a call of a tool', find);
}

test('SEED-8: a turn that is cancelled before any agent has started', options, async (t) => {
  const user = join(t, 'user-1', unique('idle'));
  const turn = await user.transport.view.send(words(5));
  assert.deepEqual([...user.transport.tree.getActiveTurnIds().get('user-1')], [turn.turnId]);
  await turn.cancel();
  assert.equal((await endOf(user, turn.turnId)).reason, 'cancelled');
  assert.equal((await read(turn.stream)).chunks.length, 0);
  assert.equal(user.transport.tree.getActiveTurnIds().size, 0);
});

test('SEED-24: an answer to a tool goes on with the turn', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const turn = await user.transport.view.send(script('tool=client tokens=5 rate=100'));
  const { node: pendingNode, part: pendingPart } = await waitingCall(user);
  const { answer } = await snippet('B3');
  const goesOn = await answer(user.transport, pendingNode, pendingPart, { answer: 42 });
  assert.equal(goesOn.turnId, turn.turnId);
  const { text, chunks } = await read(goesOn.stream);
  assert.equal(text, said(5));
  assert.equal(chunks.at(-1).type, 'finish');
  assert.equal((await endOf(user, turn.turnId)).reason, 'complete');
});

test('SEED-25: a turn that waits for a tool is active, can be cancelled, and takes no answer afterwards', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const turn = await user.transport.view.send(script('tool=client tokens=5'));
  const { node, part } = await waitingCall(user);
  assert.ok(user.transport.tree.getActiveTurnIds().get('user-1').has(turn.turnId));
  await user.transport.cancel();
  assert.equal((await endOf(user, turn.turnId)).reason, 'cancelled');
  const late = user.transport.view.update(node.msgId, [{ type: 'tool-output-error', toolCallId: part.toolCallId, errorText: 'too late' }]);
  await assert.rejects(late, (error) => {
    assert.equal(error.code, ErrorCode.TransportSendFailed);
    assert.match(error.cause.message, /ended/);
    return true;
  });
});

test('SEED-26: after a reload the Map has silent, waiting and suspended turns at once', options, async (t) => {
  const name = unique('queue');
  const user = join(t, 'user-1', name);
  const silent = await user.transport.view.send(script('tokens=5 rate=100 hang_at=0'));
  await until(user.transport, 'a start', () => user.turns.length === 1);
  const queued = await user.transport.view.send(words(5));
  const elsewhere = unique();
  const asking = join(t, 'user-1', elsewhere);
  const suspended = await asking.transport.view.send(script('tool=client tokens=5'));
  await waitingCall(asking);

  const began = performance.now();
  const reloaded = join(t, 'user-1', name);
  const map = () => reloaded.transport.tree.getActiveTurnIds();
  await until(reloaded.transport, 'both', () => map().get('user-1')?.size === 2);
  assert.deepEqual(new Set(map().get('user-1')), new Set([silent.turnId, queued.turnId]));
  assert.ok(map().get(AGENT).has(silent.turnId));
  const again = join(t, 'user-2', elsewhere);
  await until(again.transport, 'the suspended one', () => again.transport.tree.getActiveTurnIds().get('user-1')?.has(suspended.turnId));
  assert.ok(performance.now() - began < 2000, 'at once');

  // A reloaded page cancels what it did not start.
  await reloaded.transport.cancel();
  assert.equal(map().size, 0);
  await again.transport.cancel({ all: true });
  assert.equal((await endOf(asking, suspended.turnId)).reason, 'cancelled');
});

test('SEED-27: a connection that is lost cancels nothing; the text is complete, once', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const turn = await user.transport.view.send(words(100, 50));
  await speaking(user.transport, turn.turnId);
  const gone = user.client.connection.whenState('disconnected');
  user.client.connection.connectionManager.activeProtocol.getTransport().wsConnection.close();
  await gone;
  assert.ok(user.transport.tree.getActiveTurnIds().get('user-1').has(turn.turnId));
  assert.equal((await read(turn.stream)).text, said(100));
  assert.equal((await endOf(user, turn.turnId)).reason, 'complete');
  assert.equal(answerOf(user.transport, turn.turnId), said(100));
  assert.equal(user.errors.length, 0);
});

test('SEED-34: a refused send is an error, and its message stays visible', options, async (t) => {
  const user = join(t, undefined, unique(), { extra: { key: process.env.READER_KEY, clientId: 'user-1' } });
  const reported = new Promise((resolve) => user.transport.on('error', resolve));
  const sending = user.transport.view.send({ role: 'user', content: 'hello' });
  await assert.rejects(sending, (error) => errorInfoIs(error, ErrorCode.TransportSendFailed));
  const error = await reported;
  assert.ok(errorInfoIs(error, SessionErrorCode.SessionSendFailed));
  assert.equal(error.cause.statusCode, 401);
  assert.deepEqual(user.transport.view.getMessages().map((message) => message.parts[0].text), ['hello']);
  assert.equal(user.transport.view.flattenNodes()[0].serial, undefined);
  assert.equal(user.transport.tree.getActiveTurnIds().size, 0);
  assert.equal(ErrorCode.SessionClosed, ErrorCode.TransportClosed);
});

test('SEED-35: a cancel that is not allowed rejects, and cancels nothing', options, async (t) => {
  const name = unique();
  const owner = join(t, 'user-1', name);
  const turn = await owner.transport.view.send(words(40, 100));
  const other = join(t, undefined, name, { extra: { key: process.env.ASKER_KEY, clientId: 'user-2' } });
  await assert.rejects(other.transport.cancel({ turnId: turn.turnId }), (error) => error.statusCode === 401 || error.statusCode === 403);
  assert.equal((await read(turn.stream)).text, said(40));
  assert.equal((await endOf(owner, turn.turnId)).reason, 'complete');
});

test('SEED-35: a cancel that the agent refuses rejects with 40300; its owner may', options, async (t) => {
  const name = unique('guarded');
  const owner = join(t, 'user-1', name);
  const other = join(t, 'user-2', name);
  const turn = await owner.transport.view.send(words(5000, 50));
  await speaking(owner.transport, turn.turnId);
  for (const filter of [{ turnId: turn.turnId }, { all: true }, { clientId: 'user-1' }]) {
    await assert.rejects(other.transport.cancel(filter), (error) => error.code === 40300);
  }
  await speaking(other.transport, turn.turnId);
  assert.ok(other.transport.tree.getActiveTurnIds().get('user-1').has(turn.turnId));
  await owner.transport.cancel();
  assert.equal((await endOf(other, turn.turnId)).reason, 'cancelled');
});

test('SEED-20: the id of a turn is that of its events, of the list of turns, and of the HTTP API', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const { turnId, stream } = await user.transport.view.send(words(5000, 50));
  await until(user.transport, 'its start', () => user.turns.some((event) => event.turnId === turnId));
  const path = `/v1/sessions/${encodeURIComponent(user.name)}/turns`;
  const listed = await user.client.request('GET', path, 4);
  assert.deepEqual(listed.items[0].turns.map((turn) => turn.turnId), [turnId]);
  const one = await user.client.request('GET', `${path}/${turnId}`, 4);
  assert.deepEqual([one.items[0].turnId, one.items[0].owner], [turnId, 'user-1']);
  await user.transport.cancel();
  assert.ok((await read(stream)).chunks.length > 0);
});

test('a staged message is shown here alone, until the session changes it', options, async (t) => {
  const name = unique();
  const user = join(t, 'user-1', name);
  const turn = await user.transport.view.send(words(60, 100));
  await speaking(user.transport, turn.turnId);
  const question = user.transport.view.getMessages()[0];
  const staged = { ...question, parts: [{ type: 'text', text: 'staged' }] };
  let updates = 0;
  user.transport.view.on('update', () => (updates += 1));
  user.transport.stageMessage(question.id, staged);
  assert.equal(updates, 1);
  assert.deepEqual(user.transport.view.getMessages()[0], staged);
  assert.equal(user.transport.tree.getNode(question.id).message, staged);
  assert.equal(user.transport.view.flattenNodes()[0].msgId, turn.optimisticMsgIds[0]);
  const answer = user.transport.view.getMessages()[1];
  user.transport.stageMessage(answer.id, { ...answer, parts: [] });
  await read(turn.stream);
  await endOf(user, turn.turnId);
  assert.equal(answerOf(user.transport, turn.turnId), said(60));
  assert.deepEqual(user.transport.view.getMessages()[0], staged);
});

test('messages that were there before are shown until the session has them; a POST is made if one is wanted', options, async (t) => {
  const name = unique();
  const seed = { id: 'seed-1', role: 'user', parts: [{ type: 'text', text: 'from the database' }] };
  const posts = [];
  const post = async (url, { body }) => (posts.push([url, JSON.parse(body)]), new Response(null, { status: 500 }));
  const user = join(t, 'user-1', name, { messages: [seed], api: '/wake', fetch: post, body: () => ({ extra: 1 }) });
  assert.deepEqual(user.transport.view.getMessages(), [seed]);
  const turn = await user.transport.view.send([{ ...seed }, words(2)], { body: { more: 2 } });
  await read(turn.stream);
  assert.deepEqual(user.transport.view.getMessages().map((message) => message.id).filter((id) => id === 'seed-1'), ['seed-1']);
  const [[url, sent]] = posts;
  assert.equal(url, '/wake');
  assert.deepEqual([sent.turnId, sent.id, sent.extra, sent.more, sent.messages.length], [turn.turnId, name, 1, 2, 2]);
  await until(user.transport, 'the error', () => user.errors.some((error) => error.code === ErrorCode.TransportSendFailed));
});

test('request() of the Ably SDK reaches the plain HTTP API with its binary default', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const path = `/v1/sessions/${encodeURIComponent(user.name)}`;
  const sent = await user.client.request('POST', `${path}/turns`, 4, undefined, { text: 'script: tokens=2', clientId: 'user-1' });
  assert.equal(sent.statusCode, 202);
  const [{ turnId }] = sent.items;
  const one = await user.client.request('GET', `${path}/turns/${turnId}`, 4);
  assert.equal(one.items[0].turnId, turnId);
  const none = await user.client.request('GET', `${path}/turns/none`, 4);
  assert.deepEqual([none.success, none.statusCode, none.errorCode], [false, 404, 40400]);
});
