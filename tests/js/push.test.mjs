// Web push in Chromium, where no push service can be reached: the browser's subscription is made up, with keys that the test
// has, and what arrives at the address of it is handed to the service worker as Chromium would.
// SUBSCRIPTION: JSON; SAID: a file that holds the decrypted message once it has been posted.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ORIGIN, connected, person, reads, longerThan, say, shoot, startBrowser, tab } from './page.mjs';

startBrowser();
const { SUBSCRIPTION, SAID, PUBLIC_KEY } = process.env;

/** Poll until something is there. */
async function until(find, what) {
  for (let tries = 0; tries < 200; tries++) {
    const found = await find();
    if (found) return found;
    await sleep(50);
  }
  throw new Error(`not so within 10 s: ${what}`);
}

function pretend(subscription) {
  const name = 'pretended';
  const made = {
    endpoint: subscription.endpoint,
    toJSON: () => subscription,
    unsubscribe: async () => {
      localStorage.removeItem(name);
      return true;
    },
  };
  const encode = (key) => btoa(String.fromCharCode(...new Uint8Array(key)));
  const decode = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const current = () => {
    const key = localStorage.getItem(name);
    return key && { ...made, options: { applicationServerKey: decode(key) } };
  };
  PushManager.prototype.getSubscription = async () => current();
  PushManager.prototype.subscribe = async ({ applicationServerKey, userVisibleOnly }) => {
    if (!userVisibleOnly) throw new Error('Chromium wants every push to be visible');
    localStorage.setItem(name, encode(applicationServerKey));
    return current();
  };
}

test('a browser takes the page for one that can be installed, as iOS wants before it gives it pushes', async (t) => {
  const page = await tab(await person(t), 'chat:installed', 'ann');
  const cdp = await page.context().newCDPSession(page);
  const { url, data, errors } = await cdp.send('Page.getAppManifest');
  assert.equal(url, `${ORIGIN}/static/manifest.webmanifest`);
  assert.deepEqual(errors, []);
  const { start_url, scope, display } = JSON.parse(data);
  assert.deepEqual([start_url, scope].map((one) => new URL(one, url).href), [`${ORIGIN}/`, `${ORIGIN}/`]);
  assert.equal(display, 'standalone');
  const { installabilityErrors } = await cdp.send('Page.getInstallabilityErrors');
  const missing = installabilityErrors.map(({ errorId }) => errorId);
  // The tests' windows keep nothing, which is the only thing in the way.
  assert.deepEqual(missing.filter((id) => id !== 'in-incognito'), []);
  const touch = await page.evaluate(() => document.querySelector('link[rel=apple-touch-icon]').href);
  assert.equal((await page.request.get(touch)).headers()['content-type'], 'image/png');
});

test('who has left is shown that the answer is ready, and a click opens its chat', async (t) => {
  const context = await person(t, { permissions: ['notifications'] });
  await context.addInitScript(pretend, JSON.parse(SUBSCRIPTION));
  const session = 'chat:pushed';
  const page = await tab(context, session, 'ann');
  const notify = (page) => page.getByRole('switch', { name: /Notify me/ });
  await notify(page).click();
  await page.waitForFunction(() => document.querySelector('.notify input:checked'));
  assert.equal(
    await page.evaluate(() => localStorage.getItem('pretended')),
    PUBLIC_KEY.replaceAll('-', '+').replaceAll('_', '/') + '='.repeat((4 - (PUBLIC_KEY.length % 4)) % 4),
  );
  await shoot(page, 'push');
  await say(page, 'script: tokens=40 rate=20');
  await reads(page, 0, longerThan, 5);
  await page.close();

  const said = await until(() => existsSync(SAID) && readFileSync(SAID, 'utf8'), 'the gateway posts a message');
  const bare = await context.newPage();
  await bare.goto(`${ORIGIN}/healthz`);
  const cdp = await context.newCDPSession(bare);
  let registrationId;
  cdp.on('ServiceWorker.workerRegistrationUpdated', ({ registrations }) => {
    registrationId = registrations.find(({ scopeURL }) => scopeURL === `${ORIGIN}/`)?.registrationId ?? registrationId;
  });
  await cdp.send('ServiceWorker.enable');
  await until(() => registrationId, 'the service worker is registered');
  const push = (data) => cdp.send('ServiceWorker.deliverPushMessage', { origin: ORIGIN, registrationId, data });
  // Chromium's tools drop a push now and then while another is being handled; services deliver again, too.
  const pushUntil = async (data, arrived, what) => {
    let tries = 0;
    await until(async () => {
      if (tries++ % 20 === 0) await push(data);
      return arrived();
    }, what);
  };
  const worker = await until(() => context.serviceWorkers()[0], 'the service worker runs');
  const shown = () => worker.evaluate(async () => (await registration.getNotifications()).map(({ title, body, tag, data }) => ({ title, body, tag, data })));

  await push(said);
  const { turnId } = JSON.parse(said);
  const ready = { title: 'Your answer is ready', body: session, tag: turnId, data: { session } };
  await until(async () => (await shown()).length, 'a notification');
  assert.deepEqual(await shown(), [ready]);
  await push(said);
  const other = JSON.stringify({ ...JSON.parse(said), type: 'turn.suspended', session: 'chat:other', turnId: 'other' });
  await pushUntil(other, async () => (await shown()).length === 2, 'another one');
  assert.deepEqual((await shown()).find(({ tag }) => tag === turnId), ready, 'a repeat is not a second one');
  assert.equal((await shown()).find(({ tag }) => tag === 'other').title, 'An answer waits for your decision');

  const opened = await worker.evaluate(async (tag) => {
    let address;
    // Without a person's click the browser would not let it.
    self.clients.openWindow = async (url) => void (address = url);
    const [notification] = await registration.getNotifications({ tag });
    const click = new NotificationEvent('notificationclick', { notification });
    self.dispatchEvent(click);
    for (let tries = 0; tries < 100 && !address; tries++) await new Promise((resolve) => setTimeout(resolve, 20));
    return address;
  }, turnId);
  assert.equal(opened, `${ORIGIN}/?session=${encodeURIComponent(session)}`);
  await until(async () => (await shown()).every(({ tag }) => tag !== turnId), 'the one clicked is gone');

  // Who looks at the chat is shown nothing; what is no JSON is shown as it can be.
  const again = await tab(context, session, 'ann');
  await again.bringToFront();
  await push(said);
  await pushUntil('no JSON', async () => (await shown()).some(({ tag }) => tag === 'answer'), 'the one after it');
  assert.equal((await shown()).some(({ tag }) => tag === turnId), false);

  // It is on, for the same person, and goes off.
  await connected(again);
  await again.waitForFunction(() => document.querySelector('.notify input:checked:not(:disabled)'));
  await notify(again).click();
  await again.waitForFunction(() => document.querySelector('.notify input:not(:checked):not(:disabled)'));
  assert.equal(await again.evaluate(() => localStorage.getItem('pretended')), null);
});

test('a gateway without a key, or a browser that forbids it, shows no switch that cannot be used', async (t) => {
  const page = await tab(await person(t), 'chat:plain', 'bob');
  // No permission was granted: headless Chromium denies it.
  const asked = await page.evaluate(() => Notification.permission);
  if (asked === 'denied') await page.waitForFunction(() => document.querySelector('.notify input:disabled'));
  else await page.waitForFunction(() => document.querySelector('.notify input:not(:checked)'));
});
