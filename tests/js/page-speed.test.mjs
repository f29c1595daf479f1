// How fast the chat page is. With LONG=1 all of it: 200 turns, and ten thousand tokens at a thousand a second.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answers, body, ends, longerThan, open, ORIGIN, reads, say, startBrowser } from './page.mjs';
import { KEY, unique } from './support.mjs';

const browser = startBrowser();
const LONG = process.env.LONG === '1';
const TURNS = 200;
const headers = { 'content-type': 'application/json', authorization: `Basic ${btoa(KEY)}` };

async function makeSession(session) {
  const url = `${ORIGIN}/v1/sessions/${encodeURIComponent(session)}`;
  for (let number = 0; number < TURNS; number += 1) {
    const text = `script: say=Answer number ${number}, with **some** words in it and a [link](https://example.com).`;
    await fetch(`${url}/turns`, { method: 'POST', headers, body: JSON.stringify({ text, clientId: 'alice', policy: 'queue' }) });
  }
  while ((await (await fetch(`${url}/turns`, { headers })).json()).turns.length > 0) await new Promise((resolve) => setTimeout(resolve, 100));
}

// Two hundred turns take a while to make.
if (LONG) test('the newest message of a long session is there soon after the page is opened', async (t) => {
  const session = unique();
  await makeSession(session);
  const page = await open(t, unique(), 'alice');
  await page.addInitScript((newest) => {
    const look = () => {
      if (document.body?.textContent.includes(newest)) window.firstMessage ??= performance.now();
      else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }, `Answer number ${TURNS - 1},`);
  await page.goto(`${ORIGIN}/?session=${encodeURIComponent(session)}&client=alice`);
  await page.waitForFunction(() => window.firstMessage);
  const took = Math.round(await page.evaluate(() => window.firstMessage));
  t.diagnostic(`${TURNS} turns: first message after ${took} ms`);
  assert.ok(took < 3_000, `${took} ms`);
});

test('no task takes over 50 ms while a thousand tokens a second stream', async (t) => {
  const page = await open(t, unique(), 'alice', { width: 1100 });
  await page.evaluate(() => {
    window.frames = 0;
    const count = () => requestAnimationFrame(() => ((window.frames += 1), count()));
    count();
  });
  await browser().startTracing(page, { categories: ['disabled-by-default-devtools.timeline', 'toplevel', '__metadata'] });
  const began = performance.now();
  await say(page, 'show: long rate=1000');
  if (LONG) await page.locator('[data-testid=answer][data-status=complete]').waitFor({ timeout: 60_000 });
  else await reads(page, 0, longerThan, 12_000);
  const seconds = (performance.now() - began) / 1_000;
  const tasks = mainThreadTasks(JSON.parse((await browser().stopTracing()).toString())).sort((one, other) => other - one);
  const letters = await answers(page).first().evaluate((element) => element.textContent.length);
  const frames = Math.round((await page.evaluate(() => window.frames)) / seconds);
  t.diagnostic(`${letters} letters in ${seconds.toFixed(1)} s, ${frames} frames a second; longest tasks, ms of processor time: ${tasks.slice(0, 5).map((ms) => ms.toFixed(0))}`);
  // Of processor time: what the machine does besides lengthens a task on the clock.
  assert.ok(tasks[0] < 50, `${tasks[0]} ms`);
});

/** Processor time, in ms, of each task of the page's main thread in a trace. */
function mainThreadTasks({ traceEvents }) {
  const threads = traceEvents.filter(({ name, args }) => name === 'thread_name' && args.name === 'CrRendererMain');
  const tasksOf = ({ pid, tid }) => traceEvents.filter((event) => event.pid === pid && event.tid === tid && /RunTask/.test(event.name));
  const tasks = threads.map(tasksOf).sort((one, other) => other.length - one.length)[0];
  assert.ok(tasks.length > 100, 'the trace has the tasks of the page');
  return tasks.map(({ tdur = 0 }) => tdur / 1_000);
}

test('only the growing block is drawn again', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'show: long rate=600');
  await reads(page, 0, longerThan, 2_500);
  // The first paragraph, table and code are complete: nothing in them may change any more.
  await body(page, 0).evaluate((element) => {
    window.changes = 0;
    window.length = element.textContent.length;
    for (const block of [...element.children].slice(0, 4)) {
      new MutationObserver((list) => (window.changes += list.length)).observe(block, { subtree: true, childList: true, characterData: true, attributes: true });
    }
  });
  await reads(page, 0, longerThan, 5_000);
  assert.equal(await page.evaluate(() => window.changes), 0);
  await page.getByTestId('stop').click();
  await ends(page, 0, 'cancelled');
});
