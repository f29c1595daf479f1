// The React hooks of `ably` and of `@ably/ai-transport`, rendered by React's test renderer, without a browser.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ClientSessionProvider, useView } from '@ably/ai-transport/react';
import { AblyProvider, ChannelProvider, useChannel, usePresence, usePresenceListener } from 'ably/react';
import { act, createElement as h } from 'react';
import { create } from 'react-test-renderer';
import { codec, connect, eavesdrop, question, textOf, tokens, unique } from './support.mjs';

globalThis.IS_REACT_ACT_ENVIRONMENT = true;
// React says once that its test renderer is out of fashion.
console.error = () => {};

const PATIENCE_MS = 30_000;

/** Render `element` until the test ends. */
async function mount(t, element) {
  let root;
  await act(async () => {
    root = create(element);
  });
  t.after(() => act(async () => root.unmount()));
}

/** Let React and the network go on until `condition` holds. */
async function eventually(what, condition) {
  const giveUp = Date.now() + PATIENCE_MS;
  while (!condition()) {
    if (Date.now() > giveUp) throw new Error(`not within ${PATIENCE_MS} ms: ${what}`);
    await act(() => new Promise((resolve) => setTimeout(resolve, 5)));
  }
}

test('useChannel receives and publishes', async (t) => {
  const name = unique('plain');
  const ear = await eavesdrop(t, name, { gateway: 1 });
  const got = [];
  let publish;
  function Room() {
    ({ publish } = useChannel({ channelName: name }, (message) => got.push(message.data)));
    return null;
  }
  const client = connect(t, 'alice');
  await mount(t, h(AblyProvider, { client }, h(ChannelProvider, { channelName: name }, h(Room))));
  await eventually('attached', () => client.channels.get(name).state === 'attached');
  await ear.channel.publish('n', 'from outside');
  await publish('n', 'from inside');
  await eventually('both messages', () => got.length === 2);
  assert.deepEqual(got, ['from outside', 'from inside']);
  await ear.hears('the one from inside', (heard) => heard.at(-1)?.data === 'from inside');
});

test('usePresence and usePresenceListener', async (t) => {
  const name = unique('plain');
  let members = [];
  function Room() {
    usePresence({ channelName: name }, { mood: 'good' });
    ({ presenceData: members } = usePresenceListener({ channelName: name }));
    return null;
  }
  const client = connect(t, 'alice');
  await mount(t, h(AblyProvider, { client }, h(ChannelProvider, { channelName: name }, h(Room))));
  await connect(t, 'bob', {}, 1).channels.get(name).presence.enter('hello');
  await eventually('two members', () => members.length === 2);
  const found = Object.fromEntries(members.map(({ clientId, data }) => [clientId, data]));
  assert.deepEqual(found, { alice: { mood: 'good' }, bob: 'hello' });
});

test('useView shows a turn as it streams', async (t) => {
  const channelName = unique();
  let view;
  function Chat() {
    view = useView();
    return null;
  }
  const client = connect(t, 'alice');
  const provider = { channelName, codec };
  await mount(t, h(AblyProvider, { client }, h(ClientSessionProvider, provider, h(Chat))));
  let run;
  await act(async () => {
    run = await view.send(question('script: tokens=50 rate=0'));
  });
  const texts = () => view.messages.map(({ message }) => textOf(message));
  await eventually('the whole answer', () => texts()[1] === tokens(50));
  assert.deepEqual(view.messages.map(({ message }) => message.role), ['user', 'assistant']);
  assert.ok(run);
});
