// What only this client sees: staged events and messages, upserts, deletions, messages before they are sent; and closing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCode, errorInfoIs } from 'selfhost-transport';
import { answerOf, connect, endOf, join, read, said, speaking, textOf, transcript, unique, until, words } from './support.mjs';

const options = { concurrency: true };
const script = (text) => ({ role: 'user', content: `script: ${text}` });
const texts = (view) => view.getMessages().map(textOf);

function waiting(member, state = 'input-available') {
  const find = () => member.transport.view.flattenNodes()
    .flatMap((node) => node.message.parts.map((part) => ({ node, part })))
    .find(({ part }) => part.state === state);
  return until(member.transport, `a call in state ${state}`, find);
}

test('staged events show at once, and go out with the next send, before it', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const other = join(t, 'user-2', user.name);
  const { view } = user.transport;
  const turn = await view.send(script('tool=client tokens=5 rate=100'));
  const { node, part } = await waiting(user);
  await waiting(other);
  let updates = 0;
  view.on('update', () => (updates += 1));
  user.transport.stageEvents(node.message.id, [{ type: 'tool-output-available', toolCallId: part.toolCallId, output: { answer: 42 } }]);
  assert.equal(updates, 1);
  const call = (member) => member.transport.view.getNode(node.msgId).message.parts.find(({ toolCallId }) => toolCallId);
  assert.deepEqual([call(user).state, call(user).output], ['output-available', { answer: 42 }]);
  assert.equal(user.transport.tree.getNode(node.msgId).message.parts.find(({ toolCallId }) => toolCallId).state, 'output-available');
  // No one else has heard of it, and the turn still waits.
  assert.equal(call(other).state, 'input-available');
  const next = await view.send(words(3));
  assert.equal((await endOf(user, turn.turnId)).reason, 'complete');
  assert.equal((await endOf(user, next.turnId)).reason, 'complete');
  assert.match(answerOf(user.transport, turn.turnId), new RegExp(`${said(5)}$`));
  assert.equal(call(user).state, 'output-available');
  await until(other.transport, 'the output', () => call(other).state === 'output-available');
});

test('staged events go on with their turn together with an update; those that cannot be sent are refused', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const turn = await user.transport.view.send(script('tool=client tokens=5 rate=100'));
  const { node, part } = await waiting(user);
  const refused = (events) => assert.throws(() => user.transport.stageEvents(node.id, events), (error) => errorInfoIs(error, ErrorCode.InvalidArgument));
  refused([{ type: 'text-delta', id: '1', delta: 'x' }]);
  refused([{ type: 'tool-approval-response', approvalId: 'none', approved: true }]);
  user.transport.stageEvents('unknown', [{ type: 'tool-output-error', toolCallId: part.toolCallId, errorText: 'x' }]);
  user.transport.stageEvents(node.id, [{ type: 'tool-output-available', toolCallId: part.toolCallId, output: 1 }]);
  const goesOn = await user.transport.view.update(node.id, []);
  assert.equal(goesOn.turnId, turn.turnId);
  assert.equal((await read(goesOn.stream)).text, said(5));
});

test('a staged answer that comes too late is an error, and keeps no message from being sent', options, async (t) => {
  const user = join(t, 'user-1', unique());
  await user.transport.view.send(script('tool=client tokens=5'));
  const { node, part } = await waiting(user);
  user.transport.stageEvents(node.id, [{ type: 'tool-output-available', toolCallId: part.toolCallId, output: 1 }]);
  await user.transport.cancel();
  const turn = await user.transport.view.send(words(4));
  assert.equal((await read(turn.stream)).text, said(4));
  assert.ok(user.errors.some((error) => errorInfoIs(error, ErrorCode.TransportSendFailed)), String(user.errors));
});

test('an approval may be named by its own id', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const turn = await user.transport.view.send(script('approve=1 tokens=3 rate=100'));
  const { node, part } = await waiting(user, 'approval-requested');
  await user.transport.view.update(node.id, [{ type: 'tool-approval-response', approvalId: part.approval.id, approved: true }]);
  assert.equal((await endOf(user, turn.turnId)).reason, 'complete');
});

test('upsert puts a message into the tree, or in the place of one; delete takes it out; only here', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const { tree, view } = user.transport;
  await read((await view.send(words(3))).stream);
  const [question, answer] = view.flattenNodes();
  let updates = 0;
  tree.on('update', () => (updates += 1));
  const note = { id: 'note', role: 'assistant', parts: [{ type: 'text', text: 'a note' }] };
  tree.upsert('note', note, { parent: question.msgId, mine: 'yes' }, '7');
  assert.equal(updates, 1);
  assert.deepEqual(texts(view), [textOf(question.message), 'a note', said(3)]);
  assert.deepEqual([tree.getNode('note').serial, tree.getHeaders('note').mine], ['7', 'yes']);
  tree.upsert('last', { ...note, id: 'last' });
  assert.equal(view.getMessages().at(-1).id, 'last');
  tree.upsert('last', { ...note, id: 'last', parts: [{ type: 'text', text: 'changed' }] });
  assert.deepEqual(texts(view), [textOf(question.message), 'a note', said(3), 'changed']);
  tree.upsert(answer.message.id, { ...answer.message, parts: [{ type: 'text', text: 'better' }] }, { version: '2' });
  assert.deepEqual([tree.getNode(answer.msgId).message.parts[0].text, tree.getHeaders(answer.msgId)], ['better', { version: '2' }]);
  for (const id of ['note', 'last', question.message.id]) tree.delete(id);
  assert.deepEqual(texts(view), ['better']);
  assert.equal(tree.getNode(question.msgId), undefined);
  const late = join(t, 'user-2', user.name);
  await late.transport.view.loadOlder();
  assert.deepEqual(texts(late.transport.view), [textOf(question.message), said(3)]);
});

test('a message shows before there is a connection, several as well, and none twice', options, async (t) => {
  const client = connect(t, 'user-1', { autoConnect: false });
  const { createClientTransport } = await import('selfhost-transport/vercel');
  const transport = createClientTransport({ channel: client.channels.get(unique()) });
  t.after(() => transport.close());
  const shown = [];
  const asks = () => transport.view.getMessages().filter((message) => message.role === 'user').map(textOf);
  transport.view.on('update', () => shown.push(asks()));
  const sending = [transport.view.send({ role: 'user', content: 'first' }), transport.view.send(['second', 'third'].map((content) => ({ role: 'user', content })))];
  assert.deepEqual(texts(transport.view), ['first', 'second', 'third']);
  client.connect();
  const turns = await Promise.all(sending);
  await transport.waitForTurn();
  assert.deepEqual(shown.slice(0, 2), [['first'], ['first', 'second', 'third']]);
  for (const list of shown.slice(2)) assert.deepEqual(list, ['first', 'second', 'third']);
  const asked = transport.view.flattenNodes().filter((node) => node.message.role === 'user');
  assert.deepEqual(asked.map((node) => node.msgId), turns.flatMap((turn) => turn.optimisticMsgIds));
  assert.ok(asked.every((node) => node.serial));
});

test('a view that is closed while it loads: no error; its verbs refuse', options, async (t) => {
  const user = join(t, 'user-1', unique());
  await user.transport.view.send(words(3));
  const view = user.transport.createView();
  const loading = view.loadOlder();
  view.close();
  await loading;
  await assert.rejects(view.send(words(1)), (error) => errorInfoIs(error, ErrorCode.TransportClosed));
  view.close();
  assert.equal(user.errors.filter((error) => !errorInfoIs(error, ErrorCode.TransportClosed)).length, 0);
});

test('closed while it connects, and while it sends: calls end, with code 104004', options, async (t) => {
  const name = unique();
  const client = connect(t, 'user-1', { autoConnect: false });
  const { createClientTransport } = await import('selfhost-transport/vercel');
  const transport = createClientTransport({ channel: client.channels.get(name) });
  const sending = transport.view.send(words(1));
  const waiting = transport.waitForTurn();
  const loading = transport.view.loadOlder();
  const results = Promise.allSettled([sending, waiting, loading]);
  await transport.close();
  const [sent, waited, loaded] = await results;
  assert.equal(sent.reason?.code, ErrorCode.TransportClosed);
  for (const result of [waited, loaded]) assert.ok(result.status === 'fulfilled' || result.reason.code === ErrorCode.TransportClosed, String(result.reason));
  // And another one on the same channel works.
  client.connect();
  const again = createClientTransport({ channel: client.channels.get(name) });
  t.after(() => again.close());
  assert.equal((await read((await again.view.send(words(4))).stream)).text, said(4));
});

test('closed and made again at once on the same channel', options, async (t) => {
  const user = join(t, 'user-1', unique());
  const turn = await user.transport.view.send(words(40, 100));
  await speaking(user.transport, turn.turnId);
  const closing = user.transport.close();
  const { createClientTransport } = await import('selfhost-transport/vercel');
  const again = createClientTransport({ channel: user.channel });
  t.after(() => again.close());
  await again.view.loadOlder();
  await closing;
  await again.waitForTurn();
  assert.deepEqual(transcript(again).at(-1), ['assistant', said(40)]);
});

test('a client that was closed and connected again: the next verb attaches again', options, async (t) => {
  const user = join(t, 'user-1', unique());
  await read((await user.transport.view.send(words(3))).stream);
  const running = await user.transport.view.send(words(5000, 50));
  await speaking(user.transport, running.turnId);
  user.client.close();
  await user.client.connection.whenState('closed');
  await assert.rejects(read(running.stream), (error) => errorInfoIs(error, ErrorCode.ChannelContinuityLost));
  user.client.connect();
  const turn = await user.transport.view.send(words(4));
  assert.equal((await read(turn.stream)).text, said(4));
  // Also what ran meanwhile is known, and can be stopped.
  await user.transport.cancel();
  assert.equal((await endOf(user, running.turnId)).reason, 'cancelled');
  assert.equal(user.transport.tree.getActiveTurnIds().size, 0);
});
