// What the package holds: both module formats, types, source maps, the same names; and that the pages' code is the pages'.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { turnIdOf } from 'selfhost-transport';
import { names, pageOf, runOf } from './snippets.mjs';


const root = fileURLToPath(new URL('..', import.meta.url));
const { exports, dependencies } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));
const require = createRequire(import.meta.url);
const NAMES = {
  '.': ['createClientTransport', 'ErrorCode', 'errorInfoIs', 'turnIdOf'],
  './react': ['TransportProvider', 'useClientTransport', 'useView', 'useCreateView', 'useTree', 'useActiveTurns', 'useAblyMessages'],
  './vercel': ['createClientTransport', 'createChatTransport', 'UIMessageCodec', 'ErrorCode', 'errorInfoIs'],
  './vercel/react': ['ChatTransportProvider', 'useChatTransport', 'useMessageSync', 'useActiveTurns', 'TransportProvider'],
};

for (const [entry, names] of Object.entries(NAMES)) {
  test(`${entry} as an ES module and in CommonJS`, async () => {
    const name = `selfhost-transport${entry.slice(1)}`;
    const [esm, cjs] = [await import(name), require(name)];
    for (const exported of names) assert.ok(exported in esm && exported in cjs, exported);
    assert.deepEqual(Object.keys(cjs).sort(), Object.keys(esm).sort());
    for (const { types, default: file } of Object.values(exports[entry])) {
      assert.ok(existsSync(`${root}${types}`), types);
      assert.ok(existsSync(`${root}${file}.map`), file);
    }
  });
}

test('nothing comes with it but its peers', () => assert.equal(dependencies, undefined));

test('the id of a turn is the one that the gateway computes', () => {
  const { TURN_SESSION: session, TURN_INPUT: input, TURN_ID: expected } = process.env;
  assert.equal(turnIdOf(session, input), expected);
});

// The blocks of the pages that a client runs: interruption, cancellation, concurrent turns, double texting, branches, tools, views, `useChat`.
const BLOCKS = 'I1 I2 I3 I4 I5 C1 C2 C3 C7 T1 T3 T4 T5 T6 T7 D1 D2 D3 B1 B2 B3 V1 V2 V3'.split(' ');

test('SEED-37: every block of the pages is here, and what runs differs in its import lines only', () => {
  assert.deepEqual(names.map((name) => name.split('-')[0]).sort(), [...BLOCKS].sort());
  for (const name of names) {
    const [page, ours] = [pageOf(name).split('\n'), runOf(name).split('\n')];
    assert.equal(page.length, ours.length, name);
    const changed = page.flatMap((line, index) => (line === ours[index] ? [] : [[line, ours[index]]]));
    for (const [before, after] of changed) {
      assert.match(before, /^import .* from '@ably\/ai-transport\/[a-z/]+';$/, name);
      assert.equal(after, before.replace('@ably/ai-transport', 'selfhost-transport'), name);
    }
    assert.ok(!ours.some((line) => line.includes('@ably/ai-transport')), name);
    if (name.endsWith('.jsx')) assert.ok(changed.length > 0, `${name} imports nothing of the transport`);
  }
});

test('nothing that a registry of packages would complain of', async () => {
  const { publint } = await import('publint');
  const { messages } = await publint({ pkgDir: root, strict: true, pack: 'npm' });
  assert.deepEqual(messages, []);
});

test('how large it is in a page: without its peers, minified and compressed', async () => {
  const { build } = await import('esbuild');
  const { gzipSync } = await import('node:zlib');
  const options = { bundle: true, minify: true, write: false, format: 'esm', packages: 'external', jsx: 'automatic' };
  const { outputFiles } = await build({ ...options, entryPoints: [`${root}dist/esm/vercel-react.js`] });
  const size = gzipSync(outputFiles[0].contents).length;
  assert.ok(size < 14_000, `${size} bytes`);
});

test('source maps lead to the sources that are in the package', () => {
  const { sources, sourcesContent } = JSON.parse(readFileSync(`${root}dist/esm/view.js.map`, 'utf8'));
  assert.deepEqual(sources, ['../../src/view.ts']);
  assert.equal(sourcesContent[0], readFileSync(`${root}src/view.ts`, 'utf8'));
});
