// The chat page in a real browser: talking, stopping, branches, devices.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { answers, body, ends, ENDLESS, equals, longerThan, message, open, ORIGIN, person, PHONE, reads, say, startBrowser, tab } from './page.mjs';
import { tokens, unique } from './support.mjs';

startBrowser();

for (const query of ['', '&format=msgpack']) {
  test(`send, stream, stop, send again${query}`, async (t) => {
    const page = await open(t, unique(), 'alice', { query });
    await say(page, ENDLESS);
    await page.getByTestId('stop').waitFor();
    const early = await reads(page, 0, longerThan, 10);
    await reads(page, 0, longerThan, early.length);
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
  });
}

test('sending while an answer streams; then stopping one of the two, and all of one’s own', async (t) => {
  const page = await open(t, unique(), 'alice', { theme: 'dark' });
  await say(page, ENDLESS);
  await reads(page, 0, longerThan, 10);
  await say(page, 'script: tokens=5001 rate=50');
  await reads(page, 1, longerThan, 10);
  await say(page, 'script: tokens=5002 rate=50');
  await reads(page, 2, longerThan, 10);
  await page.getByTestId('open-turns').getByText('3 of yours').waitFor();
  const before = await body(page, 0).textContent();
  await reads(page, 0, longerThan, before.length);
  await answers(page).nth(0).getByText('Stop this one').click();
  await ends(page, 0, 'cancelled');
  await page.getByTestId('open-turns').click();
  await page.getByTestId('running-turn').filter({ hasText: 'tokens=5001' }).waitFor();
  await page.getByText('Stop all 2 of mine').click();
  await Promise.all([ends(page, 1, 'cancelled'), ends(page, 2, 'cancelled')]);
  await page.getByTestId('open-turns').waitFor({ state: 'detached' });
});

test('stop the running answer and send, in one step', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, ENDLESS);
  await reads(page, 0, longerThan, 10);
  await page.getByLabel('Stop the running answer first').check();
  await message(page).fill('script: tokens=20 rate=100');
  await page.getByLabel('Stop and send').click();
  await ends(page, 0, 'cancelled');
  await reads(page, 1, equals, tokens(20));
  await ends(page, 1, 'complete');
});

test('a second device of another person is in step, also when it comes late, and stops a turn by its own button', async (t) => {
  const session = unique();
  const laptop = await open(t, session, 'alice');
  await say(laptop, 'script: tokens=400 rate=50');
  const early = await reads(laptop, 0, longerThan, 40);
  const phone = await open(t, session, 'bob', { ...PHONE, theme: 'dark' });
  assert.ok((await reads(phone, 0, longerThan, early.length - 1)).startsWith(early));
  await phone.getByTestId('open-turns').getByText('1 of others').waitFor({ state: 'attached' });
  assert.equal(await phone.getByTestId('stop').count(), 0, 'the big stop is for one’s own turns');
  await say(phone, 'Hello from the phone');
  await laptop.getByTestId('question').getByText('Hello from the phone', { exact: true }).waitFor();
  await phone.getByTestId('open-turns').click();
  await phone.getByTestId('running-turn').filter({ hasText: 'alice' }).getByRole('button').click();
  await Promise.all([ends(laptop, 0, 'cancelled'), ends(phone, 0, 'cancelled')]);
  await Promise.all([ends(laptop, 1, 'complete'), ends(phone, 1, 'complete')]);
  const texts = (page) => page.locator('[data-testid=question] .bubble, [data-testid=text]').allTextContents();
  assert.deepEqual(await texts(phone), await texts(laptop));
});

test('a second tab is the same person: it stops what the first one started', async (t) => {
  const session = unique();
  const context = await person(t);
  const first = await tab(context, session);
  await say(first, ENDLESS);
  await reads(first, 0, longerThan, 10);
  const second = await tab(context, session);
  await second.getByTestId('open-turns').getByText('1 of yours').waitFor();
  await second.getByTestId('stop').click();
  await Promise.all([ends(first, 0, 'cancelled'), ends(second, 0, 'cancelled')]);
  assert.equal(await second.locator('.author').count(), 0);
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

test('a failed turn says why, once, and can be tried again', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: tokens=10 rate=0 fail_at=3');
  await ends(page, 0, 'complete');
  await say(page, 'script: tokens=10 rate=0 fail_at=3 always=1');
  await ends(page, 1, 'error');
  await answers(page).nth(1).getByText(/^Failed: .+/).waitFor();
  assert.equal(await page.locator('.notice').count(), 0, 'said once, in the conversation');
  await page.getByTestId('announced-urgently').getByText(/The answer failed: .+/).waitFor({ state: 'attached' });
  await answers(page).nth(1).getByText('Try again').click();
  await answers(page).nth(1).getByText('2/2').waitFor();
});

for (const [button, word] of [['Allow', 'done'], ['Deny', 'denied']]) {
  test(`a tool that needs approval: ${button}`, async (t) => {
    const page = await open(t, unique(), 'alice');
    await say(page, 'script: approve=1 tokens=5 rate=0');
    await page.getByText('needs your approval', { exact: true }).waitFor();
    await page.getByTestId('announced-urgently').getByText('The tool lookup needs your approval').waitFor({ state: 'attached' });
    await page.locator('.tool').getByRole('button', { name: button }).click();
    await page.locator('.tool-state').getByText(word, { exact: true }).waitFor();
    await page.getByTestId('text').getByText(tokens(5).trim()).waitFor();
    await ends(page, 0, 'complete');
  });
}

test('thoughts are folded away', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: reasoning=5 tokens=5 rate=0');
  await reads(page, 0, equals, tokens(5));
  assert.equal(await page.getByText('r0 r1 r2 r3 r4').isVisible(), false);
  await page.getByText('Thoughts').click();
  await page.getByText('r0 r1 r2 r3 r4').waitFor();
});

test('again and edit make versions', async (t) => {
  const page = await open(t, unique(), 'alice');
  await say(page, 'script: tokens=5 rate=0');
  await ends(page, 0, 'complete');
  await answers(page).nth(0).getByText('Again').click();
  await answers(page).nth(0).getByText('2/2').waitFor();
  await ends(page, 0, 'complete');
  await page.getByTestId('question').hover();
  await page.getByRole('button', { name: 'Edit' }).click();
  await page.getByText('You are rewriting an earlier message').waitFor();
  await say(page, 'script: tokens=7 rate=0');
  await page.getByTestId('question').getByText('2/2').waitFor();
  await reads(page, 0, equals, tokens(7));
  await page.getByLabel('Previous version').first().click();
  await reads(page, 0, equals, tokens(5));
});

test('a session without a name gets one in the address', async (t) => {
  const context = await person(t);
  const page = await context.newPage();
  await page.goto(`${ORIGIN}/`);
  await page.locator('[data-state=connected]').waitFor();
  assert.match(new URL(page.url()).searchParams.get('session'), /^chat-\w+$/);
});
