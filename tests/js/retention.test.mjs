// Who joins while retention takes turn after turn: never an empty conversation, never half a turn. CHANNEL is talked on by
// others all the while; every answer in it is ANSWER.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closed, join, textOf } from './support.mjs';

const { CHANNEL, ANSWER } = process.env;
const JOINS = 25;

for (let number = 0; number < JOINS; number += 1) {
  test(`join ${number}`, async (t) => {
    const late = await join(t, `late-${number}`, CHANNEL, { gateway: number });
    await late.view.loadOlder(200);
    const messages = late.view.getMessages().map(({ message }) => message);
    const running = new Set(late.view.runs().filter(({ state }) => state?.status === 'active'));
    assert.deepEqual(late.errors, []);
    await closed(late.client);
    assert.ok(messages.length > 1, 'the conversation is empty');
    messages.forEach(({ role }, index) => assert.equal(role, index % 2 ? 'assistant' : 'user'));
    // The last turn may be going on.
    const answers = messages.slice(0, -2).filter(({ role }) => role === 'assistant');
    for (const answer of answers) assert.equal(textOf(answer), ANSWER);
    assert.ok(running.size <= 1, 'a turn without its end');
  });
}
