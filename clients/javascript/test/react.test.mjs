// The hooks, in jsdom with StrictMode: the components of the pages with nothing but their import line changed.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { click, page, show, snippet, type } from './dom.mjs';
import { answerOf, connect, endOf, join, read, said, sleep, speaking, unique, until, words } from './support.mjs';

const { createElement, useState } = await import('react');
const { useChannel } = await import('ably/react');
const { TransportProvider, useActiveTurns, useClientTransport, useView } = await import('selfhost-transport/react');
const { UIMessageCodec } = await import('selfhost-transport/vercel');

const AGENT = 'assistant';
const provide = (channelName, ...children) => createElement(TransportProvider, { channelName, codec: UIMessageCodec }, ...children);
const lines = (container) => [...container.querySelectorAll('li')].map((li) => [li.dataset.role, li.textContent]);

/** Takes what the hooks give out of a component. */
function Probe({ channelName, skip, onHandle }) {
  onHandle(useClientTransport({ channelName, skip }));
  return null;
}

test('the versions of React and of ably that are meant', async () => {
  const { version } = await import('react');
  const { REACT: react = '19.', ABLY: ably = '2.28.' } = process.env;
  assert.ok(version.startsWith(react), version);
  const entry = createRequire(import.meta.url).resolve('ably');
  const manifest = JSON.parse(readFileSync(`${entry.slice(0, entry.indexOf('/build/'))}/package.json`, 'utf8'));
  assert.ok(manifest.version.startsWith(ably), manifest.version);
});

test('SEED-1: the lines of the page', async (t) => {
  const user = join(t, 'user-1', unique());
  const { interrupt } = await snippet('I1');
  const turn = await user.transport.view.send(words(3000, 200));
  await speaking(user.transport, turn.turnId);
  await interrupt(user.transport, words(7));
  const length = answerOf(user.transport, turn.turnId).length;
  const end = await until(user.transport, 'the second', () => user.turns.find((event) => event.reason === 'complete'));
  assert.equal(answerOf(user.transport, end.turnId), said(7));
  assert.equal(answerOf(user.transport, turn.turnId).length, length);
});

test('SEED-2: typing while an answer streams replaces it', async (t) => {
  const channelName = unique();
  const observer = join(t, 'user-2', channelName);
  const { Chat } = await snippet('I2');
  const sizes = [];
  const client = connect(t, 'user-1');
  const { container } = show(t, client, provide(channelName, createElement(Chat, { channelName, onSize: (size) => sizes.push(size) })));
  await observer.channel.whenState('attached');
  await sleep(0);
  await page('the form', () => container.querySelector('form'));
  type(container, 'script: tokens=4000 rate=200');
  await page('words', () => lines(container)[1]?.[1].length > 10);
  type(container, 'script: tokens=8 rate=100');
  await page('the second answer', () => lines(container)[3]?.[1] === said(8));
  await page('rest', () => container.querySelector('output').textContent === '0');
  assert.deepEqual(sizes, [0]);
  const ends = observer.turns.filter((event) => event.type === 'x-ably-turn-end').map((event) => event.reason);
  assert.deepEqual(ends, ['cancelled', 'complete']);
  const shown = lines(container);
  assert.deepEqual(shown.map(([role]) => role), ['user', 'assistant', 'user', 'assistant']);
  assert.ok(said(4000).startsWith(shown[1][1]));
});

test('SEED-3: a second message without a cancel streams alongside', async (t) => {
  const channelName = unique();
  const observer = join(t, 'user-2', channelName);
  await observer.channel.whenState('attached');
  const { Alongside } = await snippet('I3');
  const { container } = show(t, connect(t, 'user-1'), provide(channelName, createElement(Alongside)));
  await page('buttons', () => container.querySelector('#two'));
  click(container, '#one');
  click(container, '#two');
  await until(observer.transport, 'both ends', () => observer.turns.filter((event) => event.reason === 'complete').length === 2);
  assert.deepEqual(observer.turns.map((event) => event.type.slice(12)), ['start', 'start', 'end', 'end']);
});

test('SEED-4: one turn by its id', async (t) => {
  const user = join(t, 'user-1', unique());
  const { cancelOne } = await snippet('I4');
  const doomed = await user.transport.view.send(words(5000, 50));
  const other = await user.transport.view.send(words(20, 100));
  await cancelOne(user.transport, doomed.turnId);
  assert.equal((await endOf(user, doomed.turnId)).reason, 'cancelled');
  assert.equal((await read(other.stream)).chunks.at(-1).type, 'finish');
});

test('SEED-5: the agent is busy, and then it is not', async (t) => {
  const channelName = unique();
  const { Indicator } = await snippet('I5');
  const renders = [];
  const props = { channelName, agentClientId: AGENT, onRender: (state) => renders.push(state) };
  const { container } = show(t, connect(t, 'user-2'), provide(channelName, createElement(Indicator, props)));
  const user = join(t, 'user-1', channelName);
  const turn = await user.transport.view.send(words(3000, 50));
  await page('busy', () => container.textContent === 'The agent is answering');
  assert.deepEqual(renders.at(-1), { isStreaming: true, agentIsBusy: true, mine: 1 });
  await turn.cancel();
  await page('idle', () => container.textContent === 'Idle');
  assert.deepEqual(renders.at(-1), { isStreaming: false, agentIsBusy: false, mine: 0 });
});

test('SEED-19: a queue in the page: one after the other, in order', async (t) => {
  const channelName = unique();
  const observer = join(t, 'user-2', channelName);
  await observer.channel.whenState('attached');
  const { QueuedChat } = await snippet('D2');
  const { container } = show(t, connect(t, 'user-1'), provide(channelName, createElement(QueuedChat)));
  await page('the form', () => container.querySelector('form'));
  type(container, 'script: tokens=30 rate=100');
  await until(observer.transport, 'the first', () => observer.turns.length === 1);
  for (const n of [11, 12, 13]) type(container, `script: tokens=${n} rate=100`);
  await page('three wait', () => container.querySelector('output').textContent === '3');
  await until(observer.transport, 'four ends', () => observer.turns.filter((event) => event.reason).length === 4);
  assert.deepEqual(observer.turns.map((event) => event.type.slice(12)), Array(4).fill(['start', 'end']).flat());
  const answers = observer.turns.filter((event) => event.reason).map((event) => answerOf(observer.transport, event.turnId));
  assert.deepEqual(answers, [30, 11, 12, 13].map(said));
});

test('SEED-19: in the page, a message replaces what runs; two without waiting run at once', async (t) => {
  const channelName = unique();
  const observer = join(t, 'user-2', channelName);
  await observer.channel.whenState('attached');
  const { ReplacingChat } = await snippet('D3');
  const { container } = show(t, connect(t, 'user-1'), provide(channelName, createElement(ReplacingChat, { channelName })));
  await page('the form', () => container.querySelector('form'));
  type(container, 'script: tokens=5000 rate=100');
  await until(observer.transport, 'the first', () => observer.turns.length === 1);
  await page('it is active', () => container.querySelector('output').textContent !== '0');
  type(container, 'script: tokens=5 rate=100');
  await until(observer.transport, 'two ends', () => observer.turns.filter((event) => event.reason).length === 2);
  assert.deepEqual(observer.turns.map((event) => event.reason ?? 'start'), ['start', 'cancelled', 'start', 'complete']);
});

test('SEED-6, 12, 14, 16: the lines of the pages on cancels, streams and waits', async (t) => {
  const user = join(t, 'user-1', unique());
  const [{ cancelSome }, { leave }, { both }, { waits }] = await Promise.all(['C3', 'C7', 'T1', 'T5'].map(snippet));
  const panels = [[], []];
  await both(user.transport, words(40, 100), words(30, 100), (chunk) => panels[0].push(chunk), (chunk) => panels[1].push(chunk));
  const text = (chunks) => chunks.map((chunk) => chunk.delta ?? '').join('');
  assert.deepEqual(panels.map(text), [said(40), said(30)]);
  const turn = await user.transport.view.send(words(20, 100));
  await waits(user.transport, turn.turnId);
  assert.equal(user.turns.at(-1).turnId, turn.turnId);
  const doomed = await user.transport.view.send(words(5000, 100));
  await cancelSome(user.transport, doomed.turnId);
  assert.equal(user.turns.at(-1).reason, 'cancelled');
  const last = await user.transport.view.send(words(5000, 100));
  const other = join(t, 'user-2', user.name);
  await until(other.transport, 'it', () => other.transport.tree.getActiveTurnIds().has('user-1'));
  await leave(user.transport);
  assert.equal((await endOf(other, last.turnId)).reason, 'cancelled');
});

test('SEED-4, 8, 15, 18, 19: the lines of the pages on turns beside each other', async (t) => {
  const user = join(t, 'user-1', unique());
  const other = join(t, 'user-2', user.name);
  const [{ stop }, { sendAndStop }, { whoIsActive }, { cancelFirst }, { replace }, { together }, { sendBoth }] =
    await Promise.all(['C1', 'C2', 'T3', 'T4', 'T6', 'T7', 'D1'].map(snippet));
  const reasonOf = async (turn) => (await endOf(user, turn.turnId)).reason;
  assert.equal(await reasonOf(await sendAndStop(user.transport, words(5000, 100))), 'cancelled');

  const [gone, kept] = await cancelFirst(user.transport, words(5000, 100), words(20, 100));
  assert.deepEqual([await reasonOf(gone), await reasonOf(kept)], ['cancelled', 'complete']);

  const pair = await sendBoth(user.transport, words(5000, 100), words(5000, 100));
  const log = [];
  await until(other.transport, 'both', () => other.transport.tree.getActiveTurnIds().get('assistant')?.size === 2);
  assert.equal(whoIsActive(other.transport, (line) => log.push(line)), true);
  assert.deepEqual(log.sort(), ['assistant has 2 active turn(s)', 'user-1 has 2 active turn(s)']);
  const next = await replace(user.transport, words(5, 100));
  assert.deepEqual(await Promise.all([...pair, next].map(reasonOf)), ['cancelled', 'cancelled', 'complete']);

  const [mine, theirs] = await together(user.transport, other.transport, words(5000, 100), words(30, 100));
  await stop(user.transport);
  assert.deepEqual([await reasonOf(mine), await reasonOf(theirs)], ['cancelled', 'complete']);
});

test('SEED-28: the first page on mount, older ones by a click', async (t) => {
  const channelName = unique();
  const user = join(t, 'user-1', channelName);
  const turn = await user.transport.view.send(Array.from({ length: 69 }, (_, n) => ({ role: 'user', content: `message ${n}` })));
  await endOf(user, turn.turnId);
  const { History } = await snippet('V2');
  const renders = [];
  const { container } = show(t, connect(t, 'user-2'), provide(channelName, createElement(History, { onRender: (state) => renders.push(state) })));
  await page('the first page', () => renders.at(-1)?.count > 0 && !renders.at(-1).loading);
  assert.ok(renders.some((state) => state.loading));
  assert.ok(renders.at(-1).count < 70, `${renders.at(-1).count} messages`);
  assert.equal(renders.at(-1).hasOlder, true);
  click(container, 'button');
  await page('all of it', () => renders.at(-1).count === 70 && !renders.at(-1).loading);
  await page('no button', () => !container.querySelector('button') || (click(container, 'button'), false));
  assert.equal(renders.at(-1).hasOlder, false);
});

test('SEED-29: two panes select branches by themselves', async (t) => {
  const channelName = unique();
  const user = join(t, 'user-1', channelName);
  await read((await user.transport.view.send({ role: 'user', content: 'script: tokens=3 rate=100' })).stream);
  await read((await user.transport.view.regenerate(user.transport.view.getMessages().at(-1).id)).stream);
  const { SplitPane } = await snippet('V1');
  let panes;
  const props = { channelName, onPanes: (given) => (panes = given) };
  const { container } = show(t, connect(t, 'user-2'), provide(channelName, createElement(SplitPane, props)));
  await page('both', () => panes?.left.messages.length === 2 && panes.right.messages.length === 2);
  const answer = panes.left.messages.at(-1).id;
  await page('siblings', () => panes.left.getSiblings(answer).length === 2);
  panes.left.select(answer, 0);
  await page('they differ', () => panes.left.messages.at(-1).id !== panes.right.messages.at(-1).id);
  assert.equal(panes.left.getSelectedIndex(panes.left.messages.at(-1).id), 0);
  assert.equal(panes.right.getSelectedIndex(panes.right.messages.at(-1).id), 1);
  assert.ok(container.querySelector('#left').textContent.includes(said(3)));
});

test('SEED-30: skipped: nothing is attached, and the stub throws; later it works', async (t) => {
  const channelName = unique();
  const client = connect(t, 'user-1', { autoConnect: false });
  const handles = [];
  const probe = (skip) => provide(channelName, createElement(Probe, { channelName, skip, onHandle: (handle) => handles.push(handle) }));
  const { render } = show(t, client, probe(true));
  await page('a handle', () => handles.length > 0);
  await sleep(50);
  assert.equal(client.channels.get(channelName).state, 'initialized');
  assert.equal(client.connection.state, 'initialized');
  assert.throws(() => handles.at(-1).transport.view, /skipped/);
  assert.equal(handles.at(-1).transportError, undefined);
  client.connect();
  render(probe(false));
  await page('a transport', () => { try { return handles.at(-1).transport.view; } catch { return false; } });
  assert.equal((await read((await handles.at(-1).transport.view.send(words(3))).stream)).text, said(3));
});

test('SEED-31: without a provider there is an error, and the page is shown', async (t) => {
  const handles = [];
  const probe = (channelName) => createElement('p', null, 'shown', createElement(Probe, { channelName, onHandle: (handle) => handles.push(handle) }));
  const { container, render } = show(t, connect(t, 'user-1'), probe(undefined));
  await page('children', () => container.textContent === 'shown');
  assert.match(handles.at(-1).transportError.message, /no TransportProvider/);
  assert.throws(() => handles.at(-1).transport.view, /no TransportProvider/);
  render(provide(unique(), probe('another name')));
  await page('the other error', () => /another name/.test(handles.at(-1).transportError?.message));
});

test('SEED-32: nested providers', async (t) => {
  const [outer, inner] = [unique(), unique()];
  const handles = {};
  const probe = (label, channelName) => createElement(Probe, { channelName, onHandle: (handle) => (handles[label] = handle) });
  show(t, connect(t, 'user-1'), provide(outer, provide(inner, probe('outer', outer), probe('inner', inner), probe('nearest'))));
  await page('handles', () => handles.nearest);
  assert.equal(handles.nearest.transport, handles.inner.transport);
  assert.notEqual(handles.outer.transport, handles.inner.transport);
  const turn = await handles.outer.transport.view.send(words(4));
  assert.equal((await read(turn.stream)).text, said(4));
  assert.equal(handles.inner.transport.view.getMessages().length, 0);
});

test('SEED-36: StrictMode mounts twice: one session, no chunk twice; unmounted, it is closed', async (t) => {
  const channelName = unique();
  const client = connect(t, 'user-1');
  const get = client.channels.get.bind(client.channels);
  const seen = new Set();
  let handle;
  function All() {
    handle = useClientTransport();
    seen.add(handle.transport);
    const { messages } = useView();
    useActiveTurns();
    return createElement('output', null, messages.length);
  }
  const { unmount, container } = show(t, client, provide(channelName, createElement(All)));
  await page('mounted', () => container.querySelector('output'));
  await get(channelName).whenState('attached');
  assert.equal(seen.size, 1);
  const { text } = await read((await handle.transport.view.send(words(20))).stream);
  assert.equal(text, said(20));
  unmount();
  await page('closed', () => get(channelName).state === 'detached');
});

test('providers of one session share it: one that goes leaves the other alone; hooks of ably/react work within', async (t) => {
  const channelName = unique();
  const client = connect(t, 'user-1');
  const handles = {};
  const raw = [];
  let hide;
  function Pane({ label }) {
    handles[label] = useClientTransport().transport;
    useChannel({ channelName }, (message) => raw.push(message.name));
    return createElement('output', null, useView().messages.length);
  }
  function Both() {
    const [shown, setShown] = useState(true);
    hide = () => setShown(false);
    return [shown && provide(channelName, createElement(Pane, { label: 'one', key: 1 })), provide(channelName, createElement(Pane, { label: 'two', key: 2 }))]
      .map((pane, key) => createElement('div', { key }, pane));
  }
  const states = [];
  client.channels.get(channelName).on((change) => states.push(change.current));
  const { container } = show(t, client, createElement(Both));
  await page('both', () => handles.one && handles.two);
  assert.equal(handles.one, handles.two);
  const channel = client.channels.get(channelName);
  await channel.whenState('attached');
  hide();
  await page('one', () => container.querySelectorAll('output').length === 1);
  const { text } = await read((await handles.two.view.send(words(6))).stream);
  assert.equal(text, said(6));
  await page('messages', () => container.textContent === '2');
  assert.deepEqual(states, ['attaching', 'attached']);
  assert.ok(raw.includes('ai-run-end'), raw.join());
});

test('channels that change quickly: each is left, and the last one works', async (t) => {
  const names = [unique(), unique(), unique()];
  const client = connect(t, 'user-1');
  let handle;
  function Pane() {
    handle = useClientTransport();
    useActiveTurns();
    return createElement('output', null, useView({ limit: 10 }).messages.length);
  }
  const at = (index) => createElement('main', null, createElement(TransportProvider, { channelName: names[index], codec: UIMessageCodec }, createElement(Pane)));
  const { render, container } = show(t, client, at(0));
  for (const index of [1, 2, 0, 1, 0]) {
    await page('mounted', () => container.querySelector('output'));
    render(at(index));
  }
  await client.channels.get(names[0]).whenState('attached');
  const { text } = await read((await handle.transport.view.send(words(5))).stream);
  assert.equal(text, said(5));
  await page('messages', () => container.textContent === '2');
  for (const name of names.slice(1)) await page('left', () => ['initialized', 'detached'].includes(client.channels.get(name).state));
});
