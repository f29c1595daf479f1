// The operators' console in Chromium. URL: the gateway; KEY: an operator's key.
import assert from 'node:assert/strict';
import test from 'node:test';
import { person, startBrowser } from './page.mjs';

startBrowser();
const { URL: ORIGIN, KEY } = process.env;

test('a turn is seen, its timeline shown, and it is cancelled; the worker is drained', async (t) => {
  const context = await person(t);
  const page = await context.newPage();
  await page.goto(`${ORIGIN}/console`);
  await page.fill('#key', 'app.chat:chat');
  await page.click('#enter button');
  await page.waitForSelector('#state.bad');
  assert.match(await page.textContent('#state'), /console/);
  await page.fill('#key', KEY);
  await page.click('#enter button');
  const row = page.locator('#turns tbody tr', { hasText: 'chat:live' });
  await row.waitFor();
  assert.match(await row.textContent(), /active.*assistant.*<b>ann<\/b>/s, 'a client id is text, not markup');
  assert.match(await page.textContent('#queues'), /assistant/);
  await row.getByText('Timeline').click();
  await page.locator('#timeline li', { hasText: 'first output' }).waitFor();
  assert.deepEqual(
    (await page.locator('#timeline li').allTextContents()).map((line) => line.replace(/^\+\d+ ms /, '').replace(/ \(.*/, '')),
    ['sent', 'started', 'first output'],
  );
  await row.getByText('Cancel').click();
  await row.waitFor({ state: 'detached' });
  await page.fill('#session', 'chat:live');
  await page.click('#find button');
  const over = page.locator('#ended tbody tr');
  await over.first().waitFor();
  assert.match(await over.first().textContent(), /cancelled/);
  await over.first().getByText('Timeline').click();
  await page.locator('#timeline li', { hasText: 'cancelled' }).waitFor();
  const letter = page.locator('#dead tbody tr', { hasText: 'chat:dead' });
  await letter.getByText('Requeue').click();
  await letter.waitFor({ state: 'detached' });
  const event = page.locator('#undelivered tbody tr', { hasText: 'webhook backend' });
  assert.match(await event.first().textContent(), /ended.*chat:dead/s);
  const answered = page.waitForResponse((response) => response.url().endsWith('/webhooks/backend/requeue'));
  await event.first().getByText('Deliver again').click();
  assert.equal((await answered).status(), 202);
  await page.locator('#workers').getByText('Drain').first().click();
  await page.locator('#workers td', { hasText: 'none' }).waitFor();
});
