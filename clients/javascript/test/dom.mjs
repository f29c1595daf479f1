// A page for React without a browser.
import { JSDOM } from 'jsdom';

const { window } = new JSDOM('<!doctype html><body></body>', { url: 'http://localhost/', pretendToBeVisual: true });
for (const name of ['window', 'document', 'HTMLElement', 'HTMLIFrameElement', 'Node', 'Event', 'MutationObserver']) {
  globalThis[name] = name === 'window' ? window : window[name];
}
// In Node 21 and later there is one that cannot be assigned.
Object.defineProperty(globalThis, 'navigator', { value: window.navigator, configurable: true });

const { createElement, StrictMode, useEffect } = await import('react');
const { createRoot } = await import('react-dom/client');
const { AblyProvider } = await import('ably/react');

process.on('exit', () => window.close());

export { snippet } from './snippets.mjs';

/** Tells when StrictMode has mounted everything for the second time. */
function Mounted({ onMounted }) {
  useEffect(() => onMounted(), [onMounted]);
  return null;
}

/** Show `element` in StrictMode within the provider of `client`. `ready`: its effects have run twice, as they do there. */
export function show(t, client, element) {
  let count = 0;
  let mounted;
  const ready = new Promise((resolve) => (mounted = () => void (++count === 2 && resolve())));
  const container = document.body.appendChild(document.createElement('div'));
  const root = createRoot(container);
  const render = (shown) => root.render(createElement(StrictMode, null, createElement(AblyProvider, { client }, shown, createElement(Mounted, { onMounted: mounted }))));
  render(element);
  t.after(() => root.unmount());
  return { container, ready, render, unmount: () => root.unmount() };
}

/** Resolves when `condition` holds; it is looked at whenever the page changes. */
export function page(what, condition, patience = 10_000) {
  return new Promise((resolve, reject) => {
    const finish = (settle, value) => {
      clearTimeout(timer);
      clearInterval(poll);
      observer.disconnect();
      settle(value);
    };
    const check = () => {
      try {
        const value = condition();
        if (value) finish(resolve, value);
      } catch (error) {
        finish(reject, error);
      }
    };
    const observer = new MutationObserver(check);
    observer.observe(document.body, { childList: true, subtree: true, characterData: true, attributes: true });
    // Not everything that is waited for shows in the page.
    const poll = setInterval(check, 20);
    const timer = setTimeout(() => finish(reject, new Error(`not within ${patience} ms: ${what}\n${document.body.innerHTML.slice(0, 2000)}`)), patience);
    check();
  });
}

export function type(container, text) {
  const form = container.querySelector('form');
  form.elements.text.value = text;
  form.dispatchEvent(new window.Event('submit', { bubbles: true, cancelable: true }));
}

export function click(container, selector) {
  container.querySelector(selector).dispatchEvent(new window.MouseEvent('click', { bubbles: true }));
}
