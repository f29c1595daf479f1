// The chat page in a real browser. URL: where the gateway serves it; CHROMIUM: the browser; SHOTS: a folder for pictures.
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';
import { tokens, unique } from './support.mjs';

const { URL: ORIGIN, CHROMIUM, SHOTS } = process.env;
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--disable-component-update',
  '--no-first-run',
];
const ENDLESS = 'script: tokens=5000 rate=50';

let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
});
after(() => browser.close());

/** A tab of its own browser profile, on `session`, as `client`; it fails the test on any script error. */
async function open(t, session, client, { theme = 'light', width = 900, query = '' } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 760 }, colorScheme: theme });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  const trouble = [];
  page.on('pageerror', (error) => trouble.push(String(error)));
  page.on('request', (request) => {
    if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).host !== new URL(ORIGIN).host) trouble.push(request.url());
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(trouble, [], 'script errors, or requests that leave the gateway');
  });
  await page.goto(`${ORIGIN}/?session=${encodeURIComponent(session)}&client=${client}${query}`);
  await page.locator('[data-testid=connection][data-state=connected]').waitFor();
  return page;
}

const answers = (page) => page.getByTestId('answer');
const body = (page, index) => answers(page).nth(index).getByTestId('text');

async function say(page, text) {
  await page.getByLabel('Message').fill(text);
  await page.getByTestId('send').click();
}

/** Wait until the text of answer `index` satisfies `condition`, a function that runs in the page. */
async function reads(page, index, condition, argument) {
  await body(page, index).waitFor();
  const element = await body(page, index).elementHandle();
  await page.waitForFunction(condition, [element, argument]);
  return element.textContent();
}
const longerThan = ([element, length]) => element.textContent.length > length;
const equals = ([element, text]) => element.textContent === text;

async function ends(page, index, status) {
  await page.locator(`[data-testid=answer][data-status=${status}]`).nth(0).waitFor();
  await answers(page).nth(index).and(page.locator(`[data-status=${status}]`)).waitFor();
}

const shoot = (page, name) => (SHOTS ? page.screenshot({ path: path.join(SHOTS, `${name}.png`) }) : undefined);

for (const query of ['', '&format=msgpack']) {
  test(`send, stream, stop, send again${query}`, async (t) => {
    const page = await open(t, unique(), 'alice', { query });
    await shoot(page, `empty${query}`);
    await say(page, ENDLESS);
    await page.getByTestId('stop').waitFor();
    const early = await reads(page, 0, longerThan, 10);
    await reads(page, 0, longerThan, early.length);
    await shoot(page, `streaming${query}`);
    await page.getByTestId('stop').click();
    await ends(page, 0, 'cancelled');
    await answers(page).nth(0).getByText('Stopped', { exact: true }).waitFor();
    await page.getByTestId('stop').waitFor({ state: 'detached' });
    const partial = await body(page, 0).textContent();
    assert.ok(tokens(5000).startsWith(partial));

    await say(page, 'script: tokens=50 rate=100');
    await reads(page, 1, equals, tokens(50));
    await ends(page, 1, 'complete');
    assert.equal(await body(page, 0).textContent(), partial);
    await shoot(page, `stopped-and-sent-again${query}`);
  });
}

test('Escape stops', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, ENDLESS);
  await reads(page, 0, longerThan, 10);
  await page.keyboard.press('Escape');
  await ends(page, 0, 'cancelled');
});

test('sending while an answer streams; then stopping one of the two', async (t) => {
  const page = await open(t, unique(), 'alice', { theme: 'dark' });
  await say(page, ENDLESS);
  await reads(page, 0, longerThan, 10);
  await say(page, 'script: tokens=150 rate=50');
  await reads(page, 1, longerThan, 10);
  await page.getByTestId('open-turns').getByText('2 of yours').waitFor();
  const before = await body(page, 0).textContent();
  await reads(page, 0, longerThan, before.length);
  await shoot(page, 'two-at-once');
  await answers(page).nth(0).getByText('Stop this one').click();
  await ends(page, 0, 'cancelled');
  await reads(page, 1, equals, tokens(150));
  await ends(page, 1, 'complete');
});

test('interrupt and send', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, ENDLESS);
  await reads(page, 0, longerThan, 10);
  await page.getByLabel('Interrupt first').check();
  await page.getByLabel('Message').fill('script: tokens=20 rate=100');
  await page.getByText('Interrupt and send').click();
  await ends(page, 0, 'cancelled');
  await reads(page, 1, equals, tokens(20));
  await ends(page, 1, 'complete');
});

test('a second device is in step, also when it comes late; and may stop nothing that is not its own by "Stop"', async (t) => {
  const session = unique();
  const laptop = await open(t, session, 'alice');
  await say(laptop, 'script: tokens=400 rate=50');
  const early = await reads(laptop, 0, longerThan, 40);
  const phone = await open(t, session, 'bob', { width: 390, theme: 'dark' });
  assert.ok((await reads(phone, 0, longerThan, early.length - 1)).startsWith(early));
  await phone.getByText('1 of others').waitFor();
  assert.equal(await phone.getByTestId('stop').count(), 0);
  await shoot(phone, 'phone');
  await say(phone, 'Hello from the phone');
  await laptop.getByText('Hello from the phone', { exact: true }).waitFor();
  await answers(phone).nth(0).getByText('Stop this one').click();
  await Promise.all([ends(laptop, 0, 'cancelled'), ends(phone, 0, 'cancelled')]);
  await Promise.all([ends(laptop, 1, 'complete'), ends(phone, 1, 'complete')]);
  const texts = (page) => page.locator('[data-testid=question] .bubble, [data-testid=text]').allTextContents();
  assert.deepEqual(await texts(phone), await texts(laptop));
  await shoot(laptop, 'laptop');
});

test('the conversation is there after a reload, and goes on', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: tokens=300 rate=50');
  await reads(page, 0, longerThan, 20);
  await page.reload();
  await reads(page, 0, longerThan, 20);
  await page.getByTestId('stop').click();
  await ends(page, 0, 'cancelled');
});

test('a turn stopped before its first word says so', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: tokens=5 hang_at=0');
  await ends(page, 0, 'active');
  await answers(page).nth(0).getByLabel('working').waitFor();
  await page.getByTestId('stop').click();
  await answers(page).nth(0).getByText('Stopped before the first word').waitFor();
});

test('INT-14 a lost network stops nothing, and nothing is lost', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: tokens=200 rate=100');
  await reads(page, 0, longerThan, 20);
  await page.context().setOffline(true);
  await page.getByTestId('connection').getByText('reconnecting').waitFor();
  await shoot(page, 'offline');
  await page.context().setOffline(false);
  await page.locator('[data-testid=connection][data-state=connected]').waitFor();
  await reads(page, 0, equals, tokens(200));
  await ends(page, 0, 'complete');
});

test('a failed turn says why', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: tokens=10 rate=0 fail_at=3 always=1');
  await ends(page, 0, 'error');
  await answers(page).nth(0).getByText(/^Failed: .+/).waitFor();
  assert.equal(await page.getByRole('alert').count(), 0, 'said once, in the conversation');
  await shoot(page, 'failed');
});

for (const [button, word] of [['Allow', 'done'], ['Deny', 'denied']]) {
  test(`a tool that needs consent: ${button}`, async (t) => {
    const page = await open(t, unique(), 'alice');
    await say(page, 'script: approve=1 tokens=5 rate=0');
    await page.getByText('asks for your consent').waitFor();
    await shoot(page, `consent-${button}`);
    await page.getByRole('button', { name: button }).click();
    await page.locator('.tool-head').getByText(word, { exact: true }).waitFor();
    await page.getByTestId('text').getByText(tokens(5).trim()).waitFor();
    await shoot(page, `consent-${button}-given`);
  });
}

test('thoughts are shown apart from the answer', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: reasoning=5 tokens=5 rate=0');
  await reads(page, 0, equals, tokens(5));
  await page.getByText('Thoughts').click();
  await page.getByText('r0 r1 r2 r3 r4').waitFor();
});

test('again and edit make branches', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: tokens=5 rate=0');
  await ends(page, 0, 'complete');
  await answers(page).nth(0).hover();
  await page.getByText('Again').click();
  await answers(page).nth(0).getByText('2/2').waitFor();
  await ends(page, 0, 'complete');
  await page.getByTestId('question').hover();
  await page.getByText('Edit').click();
  await say(page, 'script: tokens=7 rate=0');
  await page.getByTestId('question').getByText('2/2').waitFor();
  await reads(page, 0, equals, tokens(7));
  await page.getByLabel('Previous version').first().click();
  await reads(page, 0, equals, tokens(5));
});

test('a session without a name gets one in the address', async (t) => {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${ORIGIN}/`);
  await page.locator('[data-state=connected]').waitFor();
  assert.match(new URL(page.url()).searchParams.get('session'), /^chat-\w+$/);
});
