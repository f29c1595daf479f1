// `useChat` on the session, in jsdom with StrictMode.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { click, page, show, snippet, type } from './dom.mjs';
import { answerOf, connect, endOf, join, read, said, unique, until, words } from './support.mjs';

const { createElement } = await import('react');
const { ChatTransportProvider, useChatTransport } = await import('selfhost-transport/vercel/react');
const lines = (container) => [...container.querySelectorAll('li')].map((li) => [li.dataset.role, li.textContent]);

test('SEED-33: the getting-started component: useChat, useMessageSync, useActiveTurns; stop ends the turn for all', async (t) => {
  const channelName = unique();
  const observer = join(t, 'user-2', channelName);
  await observer.channel.whenState('attached');
  const { Chat } = await snippet('V3');
  const chat = createElement(ChatTransportProvider, { channelName }, createElement(Chat, { channelName }));
  const { container, ready } = show(t, connect(t, 'user-1'), chat);
  const second = show(t, connect(t, 'user-3'), createElement(ChatTransportProvider, { channelName }, createElement(Chat, { channelName })));
  await Promise.all([ready, second.ready]);
  type(container, 'script: tokens=5000 rate=100');
  await page('words in both pages', () => [container, second.container].every((shown) => lines(shown)[1]?.[1].length > 10));
  await page('the button', () => container.querySelector('form').dataset.status === 'streaming' && container.querySelector('button').textContent === 'Stop');
  click(container, 'button');
  const end = await until(observer.transport, 'the end', () => observer.turns.find((event) => event.reason));
  assert.equal(end.reason, 'cancelled');
  for (const shown of [container, second.container]) {
    await page('no button to stop', () => shown.querySelector('button').textContent === 'Send');
    await page('the same text', () => lines(shown)[1][1] === answerOf(observer.transport, end.turnId));
  }
  type(container, 'script: tokens=6 rate=100');
  for (const shown of [container, second.container]) await page('the next answer', () => lines(shown).at(-1)?.[1] === said(6));
  // What another client says shows up, too.
  const turn = await observer.transport.view.send(words(9));
  await read(turn.stream);
  await endOf(observer, turn.turnId);
  await page('its answer', () => lines(container).at(-1)[1] === said(9));
  assert.equal(lines(container).length, 6);
});

test('without a provider, and when skipped', async (t) => {
  let handle;
  function Probe({ skip }) {
    handle = useChatTransport({ skip });
    return createElement('output', null, 'shown');
  }
  const { container, render } = show(t, connect(t, 'user-1', { autoConnect: false }), createElement(Probe));
  await page('shown', () => container.textContent === 'shown');
  assert.match(handle.chatTransportError.message, /no TransportProvider/);
  assert.throws(() => handle.chatTransport.sendMessages, /no TransportProvider/);
  render(createElement(Probe, { skip: true }));
  await page('no error', () => handle.chatTransportError === undefined);
  assert.throws(() => handle.chatTransport.sendMessages, /skipped/);
});
