// The examples of the README, as they stand there; and that its table of rows is right.
import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { build } from 'esbuild';
import { click, page, show, type } from './dom.mjs';
import { connect, said, unique } from './support.mjs';

const { createElement } = await import('react');
const here = fileURLToPath(new URL('.', import.meta.url));
const readme = readFileSync(`${here}../README.md`, 'utf8');
const folder = `${here}.build/readme/`;
const [chat, app, usechat, ask] = [...readme.matchAll(/```jsx?\n(.*?)```/gs)].map(([, code]) => code);

mkdirSync(folder, { recursive: true });
for (const [name, code] of Object.entries({ chat, app, usechat, ask })) writeFileSync(`${folder}${name}.jsx`, code);
await build({
  entryPoints: ['app', 'usechat', 'ask'].map((name) => `${folder}${name}.jsx`), outdir: folder, format: 'esm', bundle: true, packages: 'external',
  jsx: 'automatic', outExtension: { '.js': '.mjs' }, logLevel: 'error',
});
const example = (name) => import(`./.build/readme/${name}.mjs`);
const lines = (container) => [...container.querySelectorAll('p')].map((line) => line.textContent);

for (const name of ['app', 'usechat']) {
  test(`the page ${name}: ask, stop, ask again`, async (t) => {
    const { App } = await example(name);
    const client = connect(t, 'user-1');
    const { container, ready } = show(t, client, createElement(App, { client, channelName: unique() }));
    await ready;
    type(container, 'script: tokens=5000 rate=100');
    await page('words', () => lines(container)[1]?.length > 10);
    await page('the button', () => container.querySelector('button'));
    click(container, 'button');
    await page('no button', () => !container.querySelector('button'));
    const [, stopped] = lines(container);
    type(container, 'script: tokens=4 rate=100');
    await page('the next answer', () => lines(container)[3] === said(4));
    assert.ok(lines(container)[1].startsWith(stopped) && said(5000).startsWith(lines(container)[1]));
  });
}

test('without React', async (t) => {
  const { ask: askFor } = await example('ask');
  assert.equal(await askFor(connect(t, 'user-1'), unique(), 'script: tokens=5 rate=100'), said(5));
});

test('the table says where which row is, and no row is missing', () => {
  const inTable = Object.fromEntries([...readme.matchAll(/^\| `(\w+)` \|.*\| ([\d, ]+) \|$/gm)].map(([, name, rows]) => [name, rows.split(', ').map(Number)]));
  const found = {};
  for (const file of readdirSync(here).filter((name) => name.endsWith('.test.mjs'))) {
    const titles = [...readFileSync(here + file, 'utf8').matchAll(/^test\('SEED-([\d, ]+):/gm)];
    const rows = new Set(titles.flatMap(([, numbers]) => numbers.split(', ').map(Number)));
    if (rows.size > 0) found[file.replace('.test.mjs', '')] = [...rows].sort((one, other) => one - other);
  }
  assert.deepEqual(inTable, found);
  assert.deepEqual([...new Set(Object.values(found).flat())].sort((one, other) => one - other), Array.from({ length: 37 }, (_, index) => index + 1));
});
