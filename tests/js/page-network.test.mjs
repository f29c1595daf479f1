// The chat page and the network: offline, a gateway that returns, no websockets, below a path, tokens, what is loaded.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { connected, ends, equals, longerThan, open, ORIGIN, person, reads, say, startBrowser, tab } from './page.mjs';
import { proxy } from './page-proxy.mjs';
import { KEY, prompt, quick, tokens, unique } from './support.mjs';

startBrowser();

test('INT-14 a lost network stops nothing, and nothing is lost', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: tokens=200 rate=100');
  await reads(page, 0, longerThan, 20);
  await page.context().setOffline(true);
  await page.getByTestId('offline').waitFor();
  await page.context().setOffline(false);
  await connected(page);
  await reads(page, 0, equals, tokens(200));
  await ends(page, 0, 'complete');
});

prompt('a gateway that returns is found within a second; what was written meanwhile is sent', async (t) => {
  const gateway = await proxy(t);
  const page = await open(t, unique(), 'alice', { base: gateway.url });
  await say(page, 'Before');
  await ends(page, 0, 'complete');
  await gateway.stop();
  await page.getByTestId('offline').waitFor();
  await say(page, 'script: tokens=3 rate=0');
  await page.getByText('Not sent yet.').waitFor();
  await page.getByText('One message is sent when it is back.').waitFor();
  await gateway.start();
  const returned = performance.now();
  await connected(page);
  const took = performance.now() - returned;
  await reads(page, 1, equals, tokens(3));
  await ends(page, 1, 'complete');
  assert.equal(await page.getByText('Not sent').count(), 0);
  quick(took, 1_000);
});

/** A token of the development key for `clientId` with these rights. */
async function issue(clientId, capability, ttl = 600_000) {
  const [keyName] = KEY.split(':');
  const request = { keyName, ttl, capability: JSON.stringify(capability), clientId, timestamp: Date.now(), nonce: unique() };
  const headers = { 'content-type': 'application/json', authorization: `Basic ${btoa(KEY)}` };
  const answer = await fetch(`${ORIGIN}/keys/${keyName}/requestToken`, { method: 'POST', headers, body: JSON.stringify(request) });
  return (await answer.json()).token;
}

test('a message that the gateway refuses says so, and can be sent again or discarded', async (t) => {
  const context = await person(t);
  const token = await issue('reader', { '*': ['subscribe', 'history'] });
  await context.addInitScript((given) => location.protocol === 'http:' && sessionStorage.setItem('token', given), token);
  const page = await tab(context, unique());
  await say(page, 'May I?');
  await page.getByText('Not sent', { exact: true }).waitFor();
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.getByText('Sending…').or(page.getByText('Not sent', { exact: true })).waitFor();
  await page.getByText('Not sent', { exact: true }).waitFor();
  assert.equal(await page.getByTestId('question').count(), 1);
  await page.getByRole('button', { name: 'Discard' }).click();
  await page.getByTestId('question').waitFor({ state: 'detached' });
});

test('a token that has expired says so, and the person can sign in again', async (t) => {
  const context = await person(t);
  const token = await issue('carol', { '*': ['*'] }, 3_000);
  await context.addInitScript((given) => location.protocol === 'http:' && sessionStorage.setItem('token', given), token);
  const page = await tab(context, unique());
  await page.getByText(/^The gateway refused the connection: ./).waitFor();
  await page.getByRole('button', { name: 'Try now' }).waitFor();
  await page.getByRole('button', { name: 'Sign out' }).waitFor();
});

test('where no websocket comes through, the page polls', async (t) => {
  const gateway = await proxy(t, { websockets: false });
  const page = await open(t, unique(), 'alice', { base: gateway.url });
  await say(page, 'script: tokens=20 rate=100');
  await reads(page, 0, equals, tokens(20));
  await ends(page, 0, 'complete');
  assert.ok(gateway.paths.some((path) => path.startsWith('/comet/')));
});

test('below a path, with websockets and without', async (t) => {
  for (const websockets of [true, false]) {
    const gateway = await proxy(t, { prefix: '/deep/chat', websockets });
    const page = await open(t, unique(), 'alice', { base: gateway.url });
    await say(page, 'script: tokens=20 rate=100');
    await reads(page, 0, equals, tokens(20));
    await ends(page, 0, 'complete');
    assert.ok(gateway.paths.every((path) => path.startsWith('/deep/chat/')), gateway.paths.join());
  }
});

test('a token can be pasted; it says who the person is', async (t) => {
  const token = await issue('carol', { '*': ['*'] });
  const page = await open(t, unique(), 'alice');
  await page.getByText('Sign in').click();
  await page.getByLabel('Token', { exact: true }).fill('nonsense');
  await page.getByRole('button', { name: 'Connect' }).click();
  await page.getByRole('alert').filter({ hasText: /./ }).waitFor();
  await page.getByLabel('Token', { exact: true }).fill(token);
  await page.getByRole('button', { name: 'Connect' }).click();
  await connected(page);
  await page.locator('.person').getByText('carol').waitFor();
  await say(page, 'script: tokens=5000 rate=50');
  await page.getByTestId('open-turns').getByText('1 of yours').waitFor();
  await page.getByTestId('stop').click();
  await ends(page, 0, 'cancelled');
  await page.getByText('Sign out').click();
  await page.locator('.person').getByText('Sign in').waitFor();
});

test('the page is small, compressed, and lets nothing else in', async (t) => {
  const context = await person(t);
  const page = await context.newPage();
  const sizes = [];
  page.on('response', (response) => sizes.push(response));
  const answer = await page.goto(`${ORIGIN}/?session=${unique()}`);
  await connected(page);
  await page.waitForFunction(() => performance.getEntriesByType('resource').some(({ name }) => name.includes('highlight')));
  const total = await page.evaluate(() => performance.getEntries().reduce((sum, { transferSize = 0 }) => sum + transferSize, 0));
  assert.ok(total < 250_000, `${total} bytes`);
  const policy = answer.headers()['content-security-policy'];
  for (const rule of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "form-action 'none'"]) {
    assert.ok(policy.includes(rule), policy);
  }
  assert.ok(!/unsafe/.test(policy));
  // What fits into one packet is sent as it is.
  const large = sizes.filter((each) => each.url().includes('/static/') && !(Number(each.headers()['content-length']) < 1024));
  assert.ok(large.length >= 3);
  for (const response of large) assert.equal(response.headers()['content-encoding'], 'gzip', response.url());
});
