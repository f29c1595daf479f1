// Applications in TypeScript: as ES modules, as CommonJS, and a page.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { test } from 'node:test';

const folder = fileURLToPath(new URL('types/', import.meta.url));
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
const STRICT = '--noEmit --strict --exactOptionalPropertyTypes --jsx react-jsx --target es2022 --skipLibCheck --types node'.split(' ');

async function compiles(module, moduleResolution, ...files) {
  const places = ['--module', module, '--moduleResolution', moduleResolution];
  await promisify(execFile)(process.execPath, [tsc, ...STRICT, ...places, ...files.map((file) => folder + file)], { cwd: folder })
    .catch((error) => assert.fail(error.stdout || error.message));
}

test('modules of both kinds, and a page', () => compiles('nodenext', 'nodenext', 'esm.mts', 'cjs.cts', 'page.tsx'));

const skip = process.env.SELFHOST_TRANSPORT_LONG === '1' ? false : 'the long form only: the compiler is slow';
test('a page, for a bundler', { skip }, () => compiles('esnext', 'bundler', 'page.tsx'));
