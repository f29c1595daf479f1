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
  context.setDefaultTimeout(30_000);
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

export const longerThan = 'longer than';
export const equals = 'equals';

/** Wait until the text of answer `index` is `longerThan` a length or `equals` a text; gives that text. */
export async function reads(page, index, condition, argument) {
  const found = await page.waitForFunction(
    ([index, isLength, argument]) => {
      // Looked up at each look: another version is another element, and it is drawn a frame after the click.
      const text = document.querySelectorAll('[data-testid=answer]')[index]?.querySelector('[data-testid=text]')?.textContent;
      return text !== undefined && (isLength ? text.length > argument : text.trim() === argument.trim()) && text;
    },
    [index, condition === longerThan, argument],
  );
  return found.jsonValue();
}

export function ends(page, index, status) {
  return answers(page).nth(index).and(page.locator(`[data-status=${status}]`)).waitFor();
}

export const shoot = (page, name) => (SHOTS ? page.screenshot({ path: path.join(SHOTS, `${name}.png`) }) : undefined);
