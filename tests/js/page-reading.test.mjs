// The chat page: what an answer looks like, scrolling, files, the list of chats, the keyboard.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answers, body, ends, ENDLESS, longerThan, message, open, ORIGIN, person, PHONE, reads, say, startBrowser, tab } from './page.mjs';
import { KEY, tokens, unique } from './support.mjs';

startBrowser();

const headers = { 'content-type': 'application/json', authorization: `Basic ${btoa(KEY)}` };

/** A session of `count` turns, each with a question and an answer of one line; made without a page. */
async function makeTurns(session, count, owner = 'alice') {
  const url = `${ORIGIN}/v1/sessions/${encodeURIComponent(session)}`;
  for (let number = 0; number < count; number += 1) {
    const text = `script: say=Answer number ${number}.`;
    const sent = await fetch(`${url}/turns`, { method: 'POST', headers, body: JSON.stringify({ text, clientId: owner, policy: 'queue' }) });
    assert.equal(sent.status, 202, await sent.text());
  }
  for (;;) {
    const { turns } = await (await fetch(`${url}/turns`, { headers })).json();
    if (turns.length === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test('Markdown: table, list, code in colours, formulas, links; copied as it was written', async (t) => {
  const page = await open(t, unique(), 'alice', { permissions: ['clipboard-read', 'clipboard-write'] });
  await say(page, 'show: markdown rate=600');
  await ends(page, 0, 'complete');
  const answer = body(page, 0);
  assert.equal(await answer.locator('table tbody tr').count(), 3);
  assert.equal(await answer.locator('td.align-right').first().textContent(), '14 m²');
  assert.equal(await answer.locator('input[type=checkbox]').count(), 3);
  assert.deepEqual(await answer.locator('code.math').allTextContents(), ['$A_{wall} = w \\cdot h$', '\\( 8\\,m^2 \\)']);
  assert.equal(await answer.locator('blockquote').textContent(), 'Prices & areas are estimates.');
  const link = answer.getByRole('link', { name: 'the shop' });
  assert.equal(await link.getAttribute('href'), 'https://example.com/paint?room=1&coat=2');
  assert.match(await link.getAttribute('rel'), /noopener/);
  await answer.locator('figure.code .hljs-keyword').first().waitFor();
  assert.equal(await answer.locator('figcaption').textContent(), 'python');
  await answer.getByRole('button', { name: 'Copy code' }).click();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^def litres[\s\S]*a litre$/);
  await answers(page).nth(0).getByRole('button', { name: 'Copy answer' }).click();
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^Here is the plan for the \*\*three\*\* rooms/);
});

test('code is not drawn anew while it grows, nor when it is complete', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'show: code rate=200');
  const code = body(page, 0).locator('figure.code code');
  await code.locator('.hljs-keyword').first().waitFor();
  // Noticed: a replaced element, and colours that are away for a moment.
  await code.evaluate((element) => {
    window.element = element;
    window.drawn = [];
    new MutationObserver(() => window.drawn.push(element.querySelectorAll('.hljs-keyword').length)).observe(element, {
      childList: true, subtree: true, characterData: true,
    });
  });
  await page.waitForFunction(() => window.drawn.length > 20);
  await page.getByTestId('stop').click();
  await ends(page, 0, 'cancelled');
  assert.ok(await code.evaluate((element) => element === window.element && element.isConnected));
  const drawn = await page.evaluate(() => window.drawn);
  assert.deepEqual(drawn, drawn.toSorted((one, other) => one - other), 'colours only come');
});

test('raw HTML and dangerous links are text', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'show: hostile');
  await ends(page, 0, 'complete');
  const answer = body(page, 0);
  assert.match(await answer.textContent(), /<script>window.hacked = 1<\/script>/);
  assert.equal(await answer.locator('script, img, b').count(), 0);
  assert.deepEqual(await answer.locator('a').evaluateAll((links) => links.map((link) => link.href)), ['https://tracker.example/p.png']);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
});

test('follows the end, unless the reader scrolled up; “Newest” leads back', async (t) => {
  const page = await open(t, unique(), 'alice', { height: 500 });
  await say(page, 'show: long rate=400');
  const list = page.locator('#conversation');
  const distance = () => list.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight);
  const grown = (height) => page.waitForFunction((than) => document.getElementById('conversation').scrollHeight > than, height);
  await grown(1_500);
  assert.ok((await distance()) < 60);
  await list.hover();
  await page.mouse.wheel(0, -400);
  await page.getByRole('button', { name: 'Go to the newest message' }).waitFor();
  const before = await list.evaluate((element) => [element.scrollTop, element.scrollHeight]);
  await grown(before[1] + 200);
  assert.equal(await list.evaluate((element) => element.scrollTop), before[0], 'stays where the reader is');
  await page.getByRole('button', { name: 'Go to the newest message' }).click();
  await page.getByRole('button', { name: 'Go to the newest message' }).waitFor({ state: 'detached' });
  await grown((await list.evaluate((element) => element.scrollHeight)) + 100);
  assert.ok((await distance()) < 60);
  await page.getByTestId('stop').click();
  await ends(page, 0, 'cancelled');
});

test('older messages come on scrolling, and the place is kept', async (t) => {
  const session = unique();
  await makeTurns(session, 60);
  const page = await open(t, session, 'alice');
  await page.getByText('Answer number 59.', { exact: true }).waitFor();
  const list = page.locator('#conversation');
  const distance = await list.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight);
  assert.ok(distance < 60, 'begins at the end');
  const loaded = await page.getByTestId('question').count();
  assert.ok(loaded < 60, `${loaded} at first`);
  // Where the first of the loaded messages is on the screen, before and after older ones come.
  const jump = await list.evaluate(async (element) => {
    const row = document.querySelector('[data-testid=question]');
    element.scrollTop = 300;
    const place = () => row.getBoundingClientRect().top;
    const at = place();
    await new Promise((resolve) => new MutationObserver((_, self) => {
      if (document.querySelector('[data-testid=question]') === row) return;
      self.disconnect();
      resolve();
    }).observe(element, { childList: true, subtree: true }));
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    return place() - at;
  });
  assert.ok(Math.abs(jump) < 4, `${jump} px`);
  for (let tries = 0; tries < 20 && !(await page.getByText('This is where the conversation begins.').isVisible()); tries += 1) {
    await list.evaluate((element) => (element.scrollTop = 0));
    await page.waitForTimeout(100);
  }
  assert.equal(await page.getByTestId('question').count(), 60);
});

test('an approval is in sight on a phone, also when its card is scrolled away', async (t) => {
  const page = await open(t, unique(), 'alice', PHONE);
  await say(page, 'show: markdown');
  await ends(page, 0, 'complete');
  await say(page, 'script: approve=1 tokens=5 rate=0');
  const card = page.locator('.tool').getByRole('button', { name: 'Allow' });
  await card.waitFor();
  assert.ok(await inSight(page, card));
  await page.getByTestId('approval-dock').waitFor({ state: 'detached' });
  await page.locator('#conversation').evaluate((element) => (element.scrollTop = 0));
  const dock = page.getByTestId('approval-dock');
  await dock.waitFor();
  assert.ok(await inSight(page, dock.getByRole('button', { name: 'Allow' })));
  assert.ok(await inSight(page, dock.getByRole('button', { name: 'Deny' })));
  await dock.getByRole('button', { name: 'Allow' }).click();
  await ends(page, 1, 'complete');
  await dock.waitFor({ state: 'detached' });
});

async function inSight(page, locator) {
  const { x, y, width, height } = await locator.boundingBox();
  const size = page.viewportSize();
  return x >= 0 && y >= 0 && x + width <= size.width && y + height <= size.height;
}

test('pictures and text files go along; what is too large is explained', async (t) => {
  const session = unique();
  const page = await open(t, session, 'alice');
  const picker = page.getByTestId('picker');
  // Noise cannot be compressed: this picture has to become smaller.
  const picture = await page.evaluate(() => {
    const canvas = new OffscreenCanvas(320, 320);
    const pixels = new ImageData(320, 320);
    for (let at = 0; at < pixels.data.length; at += 1) pixels.data[at] = at % 4 === 3 ? 255 : (Math.sin(at) * 1e5) & 255;
    canvas.getContext('2d').putImageData(pixels, 0, 0);
    return canvas.convertToBlob({ type: 'image/png' }).then((blob) => blob.arrayBuffer()).then((buffer) => [...new Uint8Array(buffer)]);
  });
  assert.ok(picture.length > 100_000);
  await picker.setInputFiles([
    { name: 'notes.txt', mimeType: 'text/plain', buffer: Buffer.from('Buy paint – and brushes') },
    { name: 'wall.png', mimeType: 'image/png', buffer: Buffer.from(picture) },
  ]);
  await page.getByRole('list', { name: 'Attached files' }).getByText('wall.png').waitFor();
  await picker.setInputFiles({ name: 'book.txt', mimeType: 'text/plain', buffer: Buffer.alloc(200_000, 'x') });
  await page.getByText(/“book.txt” has 195 KB; this message has room for .* the gateway limits its size/).waitFor();
  await picker.setInputFiles({ name: 'film.mp4', mimeType: 'video/mp4', buffer: Buffer.from('x') });
  await page.getByText('“film.mp4” is neither a picture nor a text file.').waitFor();
  await say(page, 'Look at these');
  await ends(page, 0, 'complete');
  const other = await open(t, session, 'bob');
  for (const each of [page, other]) {
    const question = each.getByTestId('question');
    await question.locator('img.picture').waitFor();
    assert.ok(await question.locator('img.picture').evaluate((image) => image.naturalWidth > 0));
    await question.getByText('notes.txt').click();
    await question.getByText('Buy paint – and brushes').waitFor();
  }
});

test('the list of chats: titles, newest first, search, rename, new; what runs and what is unread elsewhere', async (t) => {
  const context = await person(t);
  const [first, second] = [unique(), unique()];
  const page = await tab(context, first);
  const items = page.getByTestId('session');
  await say(page, 'Colours for the kitchen');
  await ends(page, 0, 'complete');
  await items.filter({ hasText: 'Colours for the kitchen' }).waitFor();
  await page.getByRole('button', { name: 'New chat' }).click();
  await page.getByText('What would you like to talk about?').waitFor();
  assert.notEqual(new URL(page.url()).searchParams.get('session'), first);
  await say(page, 'Tyres for the bicycle');
  await ends(page, 0, 'complete');
  await items.nth(1).waitFor();
  assert.deepEqual(await items.locator('.title').allTextContents(), ['Tyres for the bicycle', 'Colours for the kitchen']);
  assert.equal(await page.title(), 'Tyres for the bicycle');

  // The other session is worked on from elsewhere.
  const kitchen = items.filter({ hasText: 'kitchen' });
  const elsewhere = await open(t, first, 'bob');
  await page.waitForTimeout(1_500);
  await say(elsewhere, 'script: tokens=5000 rate=50');
  await kitchen.and(page.locator('[data-running=true]')).waitFor();
  await elsewhere.getByText('Stop this one').click();
  await kitchen.and(page.locator('[data-running=false][data-unread=true]')).waitFor();

  await page.getByLabel('Search chats').fill('BICYCLE');
  await kitchen.waitFor({ state: 'detached' });
  assert.equal(await items.count(), 1);
  await page.getByLabel('Search chats').fill('');
  await kitchen.hover();
  await page.getByRole('button', { name: 'Rename Colours for the kitchen' }).click();
  await page.getByLabel('Title of the chat').fill('Painting');
  await page.keyboard.press('Enter');
  const painting = items.filter({ hasText: 'Painting' });
  await painting.getByRole('link').click();
  await answers(page).nth(1).waitFor();
  await painting.and(page.locator('[data-unread=false]')).waitFor();
  assert.equal(await page.getByRole('heading', { level: 1 }).textContent(), 'Painting');
  await page.goBack();
  await page.getByTestId('question').getByText('Tyres for the bicycle').waitFor();
  await page.reload();
  await painting.waitFor();
  await body(page, 0).waitFor();
});

test('keyboard: new line, send, edit the last, stop, and the order of focus', async (t) => {
  const page = await open(t, unique(), 'alice');
  assert.ok(await message(page).evaluate((element) => element === document.activeElement), 'one can write at once');
  await page.keyboard.type('script: tokens=3 rate=0');
  await page.keyboard.press('Shift+Enter');
  assert.match(await message(page).inputValue(), /\n$/);
  await page.keyboard.press('Enter');
  await ends(page, 0, 'complete');
  await page.keyboard.press('ArrowUp');
  await page.getByText('You are rewriting an earlier message').waitFor();
  assert.equal(await message(page).inputValue(), 'script: tokens=3 rate=0');
  await page.keyboard.press('Escape');
  await page.getByText('You are rewriting an earlier message').waitFor({ state: 'detached' });
  await page.keyboard.type(ENDLESS);
  await page.keyboard.press('Enter');
  await reads(page, 1, longerThan, 10);
  await page.keyboard.press('Escape');
  await ends(page, 1, 'cancelled');
  await page.getByTestId('announced').getByText('The answer was stopped').waitFor({ state: 'attached' });

  await page.keyboard.type('x');
  const names = [];
  for (let step = 0; step < 3; step += 1) {
    names.push(await page.evaluate(() => document.activeElement.getAttribute('aria-label')));
    await page.keyboard.press('Tab');
  }
  assert.deepEqual(names, ['Message', 'Attach a picture or a text file', 'Send']);
  await page.locator('body').evaluate(() => document.activeElement.blur());
});

test('a screen reader hears the answer once it is complete', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: tokens=6 rate=0');
  await page.getByTestId('announced').getByText(`The answer is complete. ${tokens(6).trim()}`).waitFor({ state: 'attached' });
});
