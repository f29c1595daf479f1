// The pages' components in Chromium: two browsers, tabs, reloads, a network that goes away. CHROMIUM: the browser.
import assert from 'node:assert/strict';
import http from 'node:http';
import { fileURLToPath } from 'node:url';
import { after, before, test } from 'node:test';
import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import { endOf, join, KEY, PORTS, said, speaking, transcript, unique, until, words } from './support.mjs';
import './snippets.mjs';

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking', '--no-first-run'];
const HTML = '<!doctype html><meta charset="utf-8"><title>pages</title><main></main><script src="/page.js"></script>';
const LONG = process.env.SELFHOST_TRANSPORT_LONG === '1';
let browser, server;

before(async () => {
  const entry = fileURLToPath(new URL('browser/page.jsx', import.meta.url));
  const built = await build({
    entryPoints: [entry], bundle: true, write: false, format: 'iife', jsx: 'automatic', logLevel: 'error', define: { 'process.env.NODE_ENV': '"development"' },
  });
  server = http.createServer(({ url }, response) => {
    const script = url.startsWith('/page.js');
    response.writeHead(200, { 'content-type': script ? 'text/javascript' : 'text/html' }).end(script ? built.outputFiles[0].text : HTML);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
});
after(async () => {
  await browser?.close();
  server?.close();
});

/** A browser of one person; a script error in it fails the test. */
async function visitor(t) {
  const context = await browser.newContext();
  context.setDefaultTimeout(10_000);
  const trouble = [];
  context.on('weberror', (error) => trouble.push(String(error.error())));
  t.after(async () => {
    await context.close();
    assert.deepEqual(trouble, []);
  });
  return context;
}

async function open(context, session, person, show) {
  const page = await context.newPage();
  const query = new URLSearchParams({ session, person, show, key: KEY, port: String(PORTS[0]) });
  await page.goto(`http://127.0.0.1:${server.address().port}/?${query}`);
  await page.locator('form').waitFor();
  return page;
}

async function say(page, text) {
  await page.locator('input[name=text]').fill(text);
  await page.keyboard.press('Enter');
}

const line = (page, index) => page.locator('li').nth(index);
const reads = (page, index, text) => page.waitForFunction(([at, wanted]) => document.querySelectorAll('li')[at]?.textContent === wanted, [index, text]);
const grows = (page, index, length = 10) => page.waitForFunction(([at, over]) => document.querySelectorAll('li')[at]?.textContent.length > over, [index, length]);
const facts = (page, name, value) => page.locator(`aside[data-${name}="${value}"]`).waitFor({ state: 'attached' });

test('SEED-2, 9, 36: typing while an answer streams replaces it; in StrictMode nothing comes twice', async (t) => {
  const page = await open(await visitor(t), unique(), 'user-1', 'interrupting');
  await say(page, 'script: tokens=5000 rate=100');
  await grows(page, 1);
  await say(page, 'script: tokens=8 rate=100');
  await reads(page, 3, said(8));
  assert.deepEqual(await page.evaluate(() => window.sizes), [0]);
  await facts(page, 'mine', 0);
  assert.equal(await page.locator('li').count(), 4);
  assert.ok(said(5000).startsWith(await line(page, 1).textContent()));
});

test('SEED-33: useChat in two browsers; Stop ends the turn for both', async (t) => {
  const session = unique();
  const [one, two] = await Promise.all([visitor(t), visitor(t)].map(async (context, index) => open(await context, session, `user-${index + 1}`, 'usechat')));
  const observer = join(t, 'user-3', session);
  observer.transport.view.getMessages();
  await say(one, 'script: tokens=5000 rate=100');
  await Promise.all([one, two].map((page) => grows(page, 1)));
  await one.locator('form[data-status=streaming]').waitFor();
  await one.getByRole('button', { name: 'Stop' }).click();
  const end = await until(observer.transport, 'the end', () => observer.turns.find((event) => event.reason));
  assert.equal(end.reason, 'cancelled');
  for (const page of [one, two]) {
    await page.getByRole('button', { name: 'Send' }).waitFor();
    await reads(page, 1, transcript(observer.transport)[1][1]);
  }
  await say(two, 'script: tokens=6 rate=100');
  for (const page of [one, two]) await reads(page, 3, said(6));
});

test('SEED-26: a page that is loaded again shows a streaming, a waiting and a suspended turn at once, and can stop them', async (t) => {
  const session = unique('queue');
  const context = await visitor(t);
  const page = await open(context, session, 'user-1', 'interrupting');
  const user = join(t, 'user-1', session);
  const streaming = await user.transport.view.send(words(5000, 50));
  await speaking(user.transport, streaming.turnId);
  const waiting = await user.transport.view.send(words(5));
  await facts(page, 'mine', 2);
  await page.reload();
  const began = Date.now();
  await facts(page, 'mine', 2);
  await facts(page, 'agent', 2);
  assert.ok(Date.now() - began < 3000);
  const size = await page.evaluate(async () => {
    await window.transport.cancel();
    return window.transport.tree.getActiveTurnIds().size;
  });
  assert.equal(size, 0);
  for (const turn of [streaming, waiting]) assert.equal((await endOf(user, turn.turnId)).reason, 'cancelled');

  const asked = await user.transport.view.send({ role: 'user', content: 'script: tool=client tokens=5' });
  await until(user.transport, 'a call', () => user.transport.view.getMessages().some((message) => message.parts.some((part) => part.state === 'input-available')));
  await page.reload();
  await facts(page, 'mine', 1);
  await page.evaluate(() => window.transport.cancel({ all: true }));
  assert.equal((await endOf(user, asked.turnId)).reason, 'cancelled');
});

test('SEED-27: a network that goes away for a while: nothing is cancelled, and the text is complete, once', async (t) => {
  const session = unique();
  const context = await visitor(t);
  const page = await open(context, session, 'user-1', 'interrupting');
  const tokens = LONG ? 350 : 100;
  await say(page, `script: tokens=${tokens} rate=50`);
  await grows(page, 1);
  await context.setOffline(true);
  await page.evaluate(() => window.dispatchEvent(new Event('offline')));
  await page.waitForTimeout(LONG ? 5000 : 1000);
  await facts(page, 'mine', 1);
  await context.setOffline(false);
  await reads(page, 1, said(tokens));
  await facts(page, 'mine', 0);
});

test('many tabs of one person: each shows the same; one stops it for all', async (t) => {
  const session = unique();
  const context = await visitor(t);
  const tabs = [];
  for (let index = 0; index < (LONG ? 10 : 3); index += 1) tabs.push(await open(context, session, 'user-1', 'interrupting'));
  await say(tabs[0], 'script: tokens=5000 rate=30');
  await Promise.all(tabs.map((tab) => grows(tab, 1)));
  await tabs.at(-1).evaluate(() => window.transport.cancel());
  await Promise.all(tabs.map((tab) => facts(tab, 'mine', 0)));
  const shown = await Promise.all(tabs.map((tab) => line(tab, 1).textContent()));
  assert.equal(new Set(shown).size, 1, [...new Set(shown)].map((text) => text.length).join());
});
