// The operators' console: reads /v1/operator/overview every two seconds; every text is set as text, never as markup.
const EVERY_MS = 2000;
const byId = (id) => document.getElementById(id);
let key = sessionStorage.getItem('console-key');
let previous = null;

async function call(path, body) {
  const response = await fetch(path, {
    method: body === undefined ? 'GET' : 'POST',
    headers: {
      authorization: `Basic ${btoa(unescape(encodeURIComponent(key)))}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const found = await response.json().catch(() => null);
  if (!response.ok) throw Object.assign(new Error(found?.error?.message ?? `status ${response.status}`), { status: response.status });
  return found;
}

function say(text, bad = false) {
  byId('state').textContent = text;
  byId('state').className = bad ? 'bad' : '';
}

function cell(row, value, name) {
  const made = row.insertCell();
  if (value instanceof Node) made.append(value);
  else made.textContent = value ?? '';
  if (name) {
    made.className = 'name';
    made.title = String(value ?? '');
  }
}

function fill(id, heads, rows) {
  const table = byId(id);
  const body = document.createElement('tbody');
  for (const values of rows) {
    const row = body.insertRow();
    for (const value of values) cell(row, value, typeof value === 'string');
  }
  const head = document.createElement('thead');
  const names = head.insertRow();
  for (const title of heads) {
    const th = document.createElement('th');
    th.textContent = title;
    names.append(th);
  }
  if (!rows.length) cell(body.insertRow(), 'none');
  table.replaceChildren(head, body);
}

function button(label, act) {
  const made = document.createElement('button');
  made.type = 'button';
  made.textContent = label;
  made.addEventListener('click', async () => {
    made.disabled = true;
    try {
      await act();
      await refresh();
    } catch (error) {
      say(error.message, true);
    }
    made.disabled = false;
  });
  return made;
}

const at = (session) => `v1/sessions/${encodeURIComponent(session)}`;

function rates(now) {
  const entries = Object.entries({ ...now.ended, 'leases lost': now.leaseLosses, 'dead letters': now.deadLetters });
  const seconds = previous ? (now.timeMs - previous.timeMs) / 1000 : 0;
  const list = byId('rates');
  list.replaceChildren();
  for (const [name, count] of entries) {
    const before = previous && name in previous.ended ? previous.ended[name] : null;
    const rate = before === null || seconds <= 0 ? '' : ` (${((count - before) / seconds).toFixed(1)}/s)`;
    const term = document.createElement('dt');
    const value = document.createElement('dd');
    term.textContent = name;
    value.textContent = `${count}${rate}`;
    const both = document.createElement('div');
    both.append(term, value);
    list.append(both);
  }
  previous = now;
}

async function refresh() {
  const [now, dead, lost] = await Promise.all([call('v1/operator/overview'), call('v1/operator/dead'), undelivered()]);
  rates(now);
  fill('queues', ['agent', 'waiting', 'oldest', 'workers'], now.queues.map((one) => [one.agent, one.depth, `${one.oldestS.toFixed(1)} s`, one.workers]));
  fill('workers', ['worker', 'agents', 'turns', ''], now.workers.map((one) => [
    one.worker, one.agents.join(', '), one.turns, button('Drain', () => call('v1/operator/workers/drain', { worker: one.worker })),
  ]));
  fill('turns', ['session', 'turn', 'status', 'agent', 'owner', 'worker', ''], now.turns.map((one) => [
    one.session, one.turnId, one.status, one.agent, one.owner, one.worker,
    actions(one.session, one.turnId, true),
  ]));
  fill('dead', ['session', 'turn', 'attempts', 'worker', 'time', ''], dead.map((one) => [
    one.session, one.turnId, one.attempts, one.worker, new Date(one.timeMs).toISOString(),
    button('Requeue', () => call('v1/operator/dead/requeue', { letterId: one.letterId })),
  ]));
  fill('undelivered', ['for', 'event', 'session', 'turn', 'reason', 'time', ''], lost.map(({ name, place, one }) => [
    name, one.event, one.session, one.turnId, one.reason, new Date(one.timeMs).toISOString(),
    button('Deliver again', () => call(`${place}/requeue`, { letterId: one.letterId })),
  ]));
  say(`${now.turns.length + now.moreTurns} live turns, ${new Date(now.timeMs).toLocaleTimeString()}`);
}

// What webhooks and pushes have given up.
async function undelivered() {
  const webhooks = (await call('v1/operator/webhooks')).filter((one) => one.dead > 0);
  const places = webhooks.map(({ name }) => [`webhook ${name}`, `v1/operator/webhooks/${encodeURIComponent(name)}`]);
  places.push(['push', 'v1/operator/push']);
  const lists = await Promise.all(places.map(([, place]) => call(`${place}/dead`)));
  return lists.flatMap((list, at) => list.map((one) => ({ name: one.clientId ? `push to ${one.clientId}` : places[at][0], place: places[at][1], one })));
}

function actions(session, turnId, open) {
  const both = document.createElement('span');
  both.append(button('Timeline', () => timeline(session, turnId)));
  if (open) both.append(button('Cancel', () => call(`${at(session)}/cancel`, { turnId })));
  return both;
}

async function timeline(session, turnId) {
  const moments = await call(`${at(session)}/turns/${encodeURIComponent(turnId)}/timeline`);
  const first = moments[0].timeMs;
  byId('timeline').replaceChildren(...moments.map((one) => {
    const item = document.createElement('li');
    item.textContent = [`+${one.timeMs - first} ms`, one.what, one.detail, one.by ? `(${one.by})` : ''].filter(Boolean).join(' ');
    return item;
  }));
}

async function ended(session) {
  const found = await call(`${at(session)}/ended`);
  fill('ended', ['turn', 'end', 'owner', 'cancelled by', 'error', ''], found.reverse().map((one) => [
    one.turnId, one.reason, one.owner, one.cancelledBy, one.error, actions(session, one.turnId, false),
  ]));
}

async function watch() {
  byId('enter').hidden = true;
  byId('main').hidden = false;
  for (;;) {
    try {
      await refresh();
    } catch (error) {
      say(error.message, true);
      if (error.status === 401 || error.status === 403) {
        sessionStorage.removeItem('console-key');
        byId('enter').hidden = false;
        byId('main').hidden = true;
        return;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

byId('enter').addEventListener('submit', (event) => {
  event.preventDefault();
  key = byId('key').value.trim();
  sessionStorage.setItem('console-key', key);
  watch();
});
byId('find').addEventListener('submit', (event) => {
  event.preventDefault();
  ended(byId('session').value).catch((error) => say(error.message, true));
});
if (key) watch();
