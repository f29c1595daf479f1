// OpenAI's Responses at /v1/responses: the published npm client, with nothing but its address and its key set.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai7';
import { KEY, PORTS, join, send, status, tokens as numbers, unique, until } from './support.mjs';

const url = (gateway = 0) => `http://127.0.0.1:${PORTS[gateway % PORTS.length]}`;
const open = (gateway = 0, options = {}) => new OpenAI({ baseURL: `${url(gateway)}/v1`, apiKey: KEY, ...options });
const client = open();
const MODEL = 'assistant';
const textOf = (events) => events.filter(({ type }) => type === 'response.output_text.delta').map(({ delta }) => delta).join('');
const responseId = (session, turnId, number = 0) => `resp_${Buffer.from([turnId, number, session].join('\0')).toString('base64url')}`;

async function read(stream, limit = Infinity) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (events.length === limit) break;
  }
  return events;
}

/** What events amount to, whatever the deltas were cut into. */
function reduced(events) {
  const found = [];
  for (const { delta, ...event } of events) {
    const last = found.at(-1);
    if (delta === undefined) found.push({ ...event, response: event.response?.status });
    else if (last?.delta !== undefined && last.item_id === event.item_id) last.delta += delta;
    else found.push({ type: event.type, item_id: event.item_id, delta });
  }
  return found;
}

test('RSP-1: the loop of the guide on background mode', async () => {
  let response = await client.responses.create({ model: MODEL, input: 'script: tokens=30 rate=100', background: true });
  assert.ok(['queued', 'in_progress'].includes(response.status));
  while (response.status === 'queued' || response.status === 'in_progress') {
    await new Promise((resolve) => setTimeout(resolve, 50));
    response = await client.responses.retrieve(response.id);
  }
  assert.equal(response.status, 'completed');
  assert.equal(response.output_text, numbers(30));
});

test("RSP-2: the helper's final response is the stored one", async () => {
  const stream = client.responses.stream({ model: MODEL, input: 'script: reasoning=3 tokens=20 tool=server' });
  const events = await read(stream);
  const final = await stream.finalResponse();
  assert.equal(textOf(events), numbers(20));
  const { parsed: _, ...stored } = await client.responses.retrieve(final.id);
  const plain = ({ output_parsed, _request_id, ...rest }) =>
    JSON.parse(JSON.stringify(rest, (name, value) => (name === 'parsed' || name === 'parsed_arguments' ? undefined : value)));
  assert.deepEqual(plain(final), plain(stored));
});

test('RSP-3, RSP-5: a stream that is cut after any event goes on exactly, on the other gateway', async () => {
  const script = 'script: reasoning=3 tokens=40 rate=200 tool=server';
  const live = await read(await client.responses.create({ model: MODEL, input: script, stream: true }));
  const { id } = live[0].response;
  for (const [at, { sequence_number }] of live.entries()) {
    const rest = await read(await open(at).responses.retrieve(id, { stream: true, starting_after: sequence_number }));
    assert.deepEqual(reduced([...live.slice(0, at + 1), ...rest]), reduced(live));
  }
});

test('RSP-4: the helper re-enters a stream after a cut, and after the end', async () => {
  const seen = await read(await client.responses.create({ model: MODEL, input: 'script: tokens=40 rate=100', stream: true }), 12);
  const { id } = seen[0].response;
  for (let round = 0; round < 2; round += 1) {
    const again = open(round).responses.stream({ response_id: id, starting_after: seen.at(-1).sequence_number });
    const rest = await read(again);
    assert.equal(textOf(seen) + textOf(rest), numbers(40));
    assert.equal((await again.finalResponse()).output_text, numbers(40));
  }
});

test('connections dropped at random points: no event twice, none missing', async () => {
  const wanted = process.env.SELFHOST_TRANSPORT_LONG === '1' ? 200 : 20;
  for (let drops = 0; drops < wanted; ) {
    const source = await client.responses.create({ model: MODEL, input: 'script: reasoning=20 tokens=150 rate=200 tool=server', stream: true });
    const events = [];
    for await (const event of source) if (events.push(event)) break;
    const { id } = events[0].response;
    const uncut = (async () => read(await open(1).responses.retrieve(id, { stream: true })))();
    while (!/\.(completed|incomplete|failed)$/.test(events.at(-1).type)) {
      const limit = 1 + Math.floor(Math.random() * 6);
      const stream = await open(drops).responses.retrieve(id, { stream: true, starting_after: events.at(-1).sequence_number });
      events.push(...(await read(stream, limit)));
      drops += 1;
    }
    assert.deepEqual(reduced(events), reduced(await uncut));
    assert.equal(textOf(events), numbers(150));
  }
});

test('RSP-6, RSP-8: a cancelled stream ends with what stays, and breaks nothing', async () => {
  const stream = client.responses.stream({ model: MODEL, input: 'script: tokens=2000 rate=50' });
  const events = [];
  let cancelled;
  for await (const event of stream) {
    events.push(event);
    if (events.length === 12) cancelled = await open(1).responses.cancel(events[0].response.id);
  }
  assert.equal(cancelled.status, 'cancelled');
  const final = await stream.finalResponse();
  assert.equal(final.status, 'cancelled');
  assert.equal(textOf(events), cancelled.output[0].content[0].text);
  assert.equal(events.at(-1).type, 'response.incomplete');
  assert.equal((await client.responses.cancel(final.id)).status, 'cancelled');
});

test('RSP-8: a failed stream breaks nothing', async () => {
  const stream = client.responses.stream({ model: MODEL, input: 'script: tokens=9 fail_at=3 always=1' });
  assert.equal((await read(stream)).at(-1).type, 'response.failed');
  assert.equal((await stream.finalResponse()).status, 'failed');
});

test('RSP-9: a function call of a client, answered', async () => {
  const asked = await client.responses.create({ model: MODEL, input: 'script: tool=client tokens=4' });
  const call = asked.output.find(({ type }) => type === 'function_call');
  const output = { type: 'function_call_output', call_id: call.call_id, output: '{"sky":"clear"}' };
  const stream = client.responses.stream({ model: MODEL, previous_response_id: asked.id, input: [output] });
  assert.equal(textOf(await read(stream)), numbers(4));
  await assert.rejects(client.responses.create({ previous_response_id: asked.id, input: [output] }), OpenAI.BadRequestError);
});

test('RSP-11: a lost answer is asked for again, and no second turn is made', async () => {
  const lost = new Set();
  let requests = 0;
  const losing = open(0, {
    fetch: async (target, init) => {
      requests += 1;
      const answer = await fetch(target, init);
      if (lost.has(init.body)) return answer;
      lost.add(init.body);
      await answer.body.cancel();
      throw new TypeError('the connection was reset');
    },
  });
  const response = await losing.responses.create({ model: MODEL, input: `script: say=${unique()}` });
  assert.equal(requests, 2);
  const items = await read(client.conversations.items.list(response.conversation.id));
  assert.deepEqual(items.map(({ role }) => role), ['assistant', 'user']);
});

test('RSP-12: what cannot succeed is not sent again', async () => {
  let requests = 0;
  const counting = open(0, { fetch: (...given) => ((requests += 1), fetch(...given)) });
  const cases = [
    [{ input: 'x', store: false }, OpenAI.BadRequestError, 'store'],
    [{ input: 'x', model: 'none' }, OpenAI.NotFoundError, 'model'],
    [{ input: 'x', previous_response_id: 'resp_none' }, OpenAI.BadRequestError, 'previous_response_id'],
  ];
  for (const [body, kind, param] of cases) {
    requests = 0;
    await assert.rejects(counting.responses.create(body), (error) => {
      assert.ok(error instanceof kind, error);
      assert.deepEqual([error.param, error.type], [param, 'invalid_request_error']);
      return true;
    });
    assert.equal(requests, 1);
  }
  await assert.rejects(open(0, { apiKey: 'app.none:x' }).responses.create({ input: 'x' }), OpenAI.AuthenticationError);
});

test("one session: an Ably client sees, and ends, a response's turn; and the other way round", async (t) => {
  const name = unique();
  const session = await join(t, 'user-1', name, { gateway: 1 });
  const stream = await client.responses.create({ model: MODEL, conversation: name, input: 'script: tokens=2000 rate=50', stream: true });
  const events = [];
  let asked = false;
  for await (const event of stream) {
    events.push(event);
    const run = session.session.view.runs().find(({ status }) => status === 'active');
    if (run && events.length > 10 && !asked) {
      asked = true;
      await session.session.cancel(run.runId);
    }
  }
  assert.equal(events.at(-1).response.status, 'cancelled');
  assert.ok(asked);
  const sent = await send(session, 'script: tokens=2000 rate=50');
  const turnId = await until('the turn begins', (check) => session.view.on('update', check), () => sent.runId);
  const cancelled = await client.responses.cancel(responseId(name, turnId));
  assert.equal(cancelled.status, 'cancelled');
  await until('the cancel is seen', (check) => session.view.on('update', check), () => status(session, turnId) === 'cancelled');
});
