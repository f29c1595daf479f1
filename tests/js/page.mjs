// What the suites of the chat page share. URL: where the gateway serves it; CHROMIUM: the browser; SHOTS: a folder for pictures.
import assert from 'node:assert/strict';
import path from 'node:path';
import { after, before } from 'node:test';
import { chromium } from 'playwright-core';

export const { URL: ORIGIN, CHROMIUM, SHOTS } = process.env;
export const ENDLESS = 'script: tokens=5000 rate=50';
export const PHONE = { width: 390, height: 780 };
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-background-networking',
  '--disable-component-update',
  '--no-first-run',
];

let browser;

/** Before all tests; gives the browser then. */
export function startBrowser() {
  before(async () => {
    browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  });
  after(() => browser.close());
  return () => browser;
}

/** A browser of one person; it fails the test on script errors, refused content, and requests that leave the gateway. */
export async function person(t, { theme = 'light', width = 900, height = 760, allowed = [], origin = ORIGIN, ...more } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: theme, reducedMotion: 'reduce', ...more });
  context.setDefaultTimeout(10_000);
  const trouble = [];
  context.on('weberror', (error) => trouble.push(String(error.error())));
  context.on('console', (message) => {
    if (/Content Security Policy/i.test(message.text())) trouble.push(message.text());
  });
  context.on('request', (request) => {
    if (!/^(data|blob):/.test(request.url()) && new URL(request.url()).host !== new URL(origin).host) trouble.push(request.url());
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(trouble.filter((text) => !allowed.some((pattern) => pattern.test(text))), [], 'script errors, or requests that leave the gateway');
  });
  return context;
}

/** A tab of a browser of its own, on `session`, as `client`. */
export async function open(t, session, client, { query = '', base = ORIGIN, ...more } = {}) {
  return tab(await person(t, { origin: base, ...more }), session, client, query, base);
}

export async function tab(context, session, client, query = '', base = ORIGIN) {
  const page = await context.newPage();
  const named = client ? `&client=${client}` : '';
  await page.goto(`${base}/?session=${encodeURIComponent(session)}${named}${query}`);
  await connected(page);
  return page;
}

export function connected(page) {
  return page.locator('[data-testid=connection][data-state=connected]').waitFor();
}

export const answers = (page) => page.getByTestId('answer');
export const body = (page, index) => answers(page).nth(index).getByTestId('text');
export const message = (page) => page.getByLabel('Message', { exact: true });

export async function say(page, text) {
  await message(page).fill(text);
  await page.getByTestId('send').click();
}

/** Wait until the text of answer `index` satisfies `condition`, a function that runs in the page. */
export async function reads(page, index, condition, argument) {
  await body(page, index).waitFor();
  const element = await body(page, index).elementHandle();
  await page.waitForFunction(condition, [element, argument]);
  return element.textContent();
}
export const longerThan = ([element, length]) => element.textContent.length > length;
export const equals = ([element, text]) => element.textContent.trim() === text.trim();

export function ends(page, index, status) {
  return answers(page).nth(index).and(page.locator(`[data-status=${status}]`)).waitFor();
}

export const shoot = (page, name) => (SHOTS ? page.screenshot({ path: path.join(SHOTS, `${name}.png`) }) : undefined);
