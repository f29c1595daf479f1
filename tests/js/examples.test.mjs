// The pages of examples/ in a browser: URL is the page's, API the gateway's.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chromium } from 'playwright-core';

const { URL: page_url, API, CHROMIUM } = process.env;
const headers = { authorization: `Basic ${btoa('dev.local:development-secret')}` };
const turnsOf = async (session) => (await (await fetch(`${API}/v1/sessions/${session}/turns`, { headers })).json()).turns;

test('a question is answered, a stop is final, a reload shows the conversation', async (t) => {
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
  t.after(() => browser.close());
  const page = await browser.newPage();
  const failures = [];
  page.on('pageerror', (error) => failures.push(error));
  await page.goto(page_url);
  const answers = page.locator('p.assistant');
  const ask = async (text) => {
    await page.getByLabel('Message').fill(text);
    await page.getByRole('button', { name: 'Send' }).click();
  };
  await ask('script: tokens=8 rate=100');
  await answers.filter({ hasText: '0 1 2 3 4 5 6 7' }).waitFor();
  const session = new URL(page.url()).hash.slice(1);
  while ((await turnsOf(session)).length > 0) await page.waitForTimeout(20);

  await ask('script: tokens=2000 rate=40');
  await answers.nth(1).filter({ hasText: '0 1 2 3' }).waitFor();
  assert.equal((await turnsOf(session)).length, 1);
  const stopped = page.waitForResponse((response) => response.url().includes('/stop'));
  await page.getByRole('button', { name: 'Stop' }).click();
  assert.ok((await stopped).ok());
  assert.deepEqual(await turnsOf(session), []);

  await page.reload();
  await answers.nth(1).waitFor();
  assert.equal(await page.locator('p.user').count(), 2);
  assert.match(await answers.nth(1).textContent(), /0 1 2 3/);
  assert.deepEqual(failures, []);
});
