// What the package holds: both module formats, types, source maps, the same names.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { turnIdOf } from 'selfhost-transport';

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
