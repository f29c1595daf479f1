// What axe-core finds in the chat page's states; with SHOTS, a folder, they are made pictures for the documentation, too.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { answers, connected, ends, longerThan, open, ORIGIN, person, PHONE, reads, say, SHOTS, shoot, startBrowser } from './page.mjs';
import { unique } from './support.mjs';

startBrowser();

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const DESKTOP = { width: 1100, height: 720 };
const PAINT = 'How much paint do I need for the three rooms?';
const TYRES = 'Which tyres are best for gravel roads?';

/** Whatever axe-core finds, in words. */
async function findings(page) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(await source());
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
  return violations.flatMap(({ id, help, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${help}: ${target} ${failureSummary}`));
}

let text;
async function source() {
  const { readFile } = await import('node:fs/promises');
  // By evaluation, which the page's policy does not see: as a script it would be refused.
  return (text ??= await readFile(AXE, 'utf8'));
}

async function clean(page, what) {
  assert.deepEqual(await findings(page), [], what);
}

const ALL = ['light', 'dark'].flatMap((theme) => [[theme, 'desktop'], [theme, 'phone']]);

// Each theme and each size in any case; with LONG=1 each with each.
for (const [theme, name] of process.env.LONG === '1' ? ALL : [['light', 'desktop'], ['dark', 'phone']]) {
  const size = name === 'phone' ? PHONE : DESKTOP;

  test(`axe-core finds nothing: ${theme}, ${name}`, async (t) => {
    const page = await open(t, unique(), 'alice', { theme, ...size, allowed: [/config.json/] });
    await clean(page, 'empty');
    await say(page, 'show: markdown');
    await ends(page, 0, 'complete');
    await page.locator('.hljs-keyword').first().waitFor();
    await say(page, 'script: tokens=5 reasoning=5 rate=0');
    await ends(page, 1, 'complete');
    await answers(page).nth(1).getByText('Again').click();
    await answers(page).nth(1).getByText('2/2').waitFor();
    await say(page, 'script: tokens=10 rate=0 fail_at=3 always=1');
    await ends(page, 2, 'error');
    await say(page, 'Order the paint');
    await page.locator('.tool').getByRole('button', { name: 'Allow' }).waitFor();
    await say(page, 'script: tokens=5000 rate=5');
    await reads(page, 4, longerThan, 2);
    await page.getByTestId('open-turns').click();
    await clean(page, 'streaming, failed, approval, list of turns');
    await page.locator('#conversation').evaluate((element) => (element.scrollTop = 0));
    await page.getByTestId('approval-dock').waitFor();
    if (name === 'phone') await page.getByRole('button', { name: 'Chats' }).click();
    await clean(page, 'scrolled up, approval in the dock, list of chats');
    if (name === 'phone') await page.getByLabel('Close the list of chats').click();
    await page.getByTestId('stop').click();
    await ends(page, 4, 'cancelled');
    await page.context().setOffline(true);
    await page.getByTestId('offline').waitFor();
    await say(page, 'Later');
    await page.getByText('Not sent yet.').waitFor();
    await clean(page, 'stopped, offline');
    await page.context().setOffline(false);
    await connected(page);
  });

  test(`axe-core finds nothing in the form to sign in: ${theme}, ${name}`, async (t) => {
    const context = await person(t, { theme, ...size });
    const page = await context.newPage();
    await page.route('**/config.json', (route) => route.fulfill({ status: 404, body: '{}' }));
    await page.goto(`${ORIGIN}/`);
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await clean(page, 'signing in');
  });
}

if (SHOTS) {
  test('pictures: streaming, two at once, stopped, dark', async (t) => {
    const session = unique();
    const page = await open(t, session, 'alice', DESKTOP);
    await say(page, PAINT);
    await ends(page, 0, 'complete');
    await say(page, TYRES);
    await reads(page, 1, longerThan, 300);
    await shoot(page, 'streaming');
    await ends(page, 1, 'complete');
    const guest = await open(t, session, 'bob', DESKTOP);
    await say(page, 'And which tyres in winter?');
    await reads(page, 2, longerThan, 40);
    await say(guest, 'Is there enough paint left from last year?');
    await reads(page, 3, longerThan, 40);
    await page.getByTestId('open-turns').click();
    await page.getByTestId('running-turn').filter({ hasText: 'bob' }).waitFor();
    await shoot(page, 'two-at-once');
    await page.getByTestId('open-turns').click();
    await page.getByTestId('stop').click();
    await guest.getByTestId('stop').click();
    await Promise.all([ends(page, 2, 'cancelled'), ends(page, 3, 'cancelled')]);
    await shoot(page, 'stopped');
    await page.getByLabel('Light or dark').click();
    await shoot(page, 'dark');
  });

  test('pictures: markdown, approval, offline', async (t) => {
    const page = await open(t, unique(), 'alice', { width: 1100, height: 1000 });
    await say(page, PAINT);
    await ends(page, 0, 'complete');
    await page.locator('.hljs-keyword').first().waitFor();
    await shoot(page, 'markdown');
    await page.setViewportSize(DESKTOP);
    await say(page, 'Order the paint for me, please');
    await page.locator('.tool').getByRole('button', { name: 'Allow' }).waitFor();
    await shoot(page, 'approval');
    await page.locator('.tool').getByRole('button', { name: 'Allow' }).click();
    await page.getByText('Done.', { exact: true }).waitFor();
    await page.context().setOffline(true);
    await page.getByTestId('offline').waitFor();
    await say(page, 'When will it arrive?');
    await page.getByText('Not sent yet.').waitFor();
    await shoot(page, 'offline');
  });

  test('picture: phone', async (t) => {
    const page = await open(t, unique(), 'alice', PHONE);
    await say(page, TYRES);
    await ends(page, 0, 'complete');
    await say(page, 'Order the paint for me, please');
    await page.locator('.tool').getByRole('button', { name: 'Allow' }).waitFor();
    await shoot(page, 'phone');
  });
}
