// Builds dist/esm and dist/cjs from src: one file for one file, so that both entry points of a page share their state.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('.', import.meta.url));
process.chdir(root);
rmSync('dist', { recursive: true, force: true });
const tsc = createRequire(import.meta.url).resolve('typescript/bin/tsc');
execFileSync(process.execPath, [tsc, '-p', '.'], { stdio: 'inherit' });

const entryPoints = readdirSync('src').map((name) => `src/${name}`);
const shared = { absWorkingDir: root, entryPoints, platform: 'neutral', target: 'es2022', sourcemap: true, jsx: 'automatic' };
await build({ ...shared, format: 'esm', outdir: 'dist/esm' });
await build({ ...shared, format: 'cjs', outdir: 'dist/cjs' });
mkdirSync('dist/cjs', { recursive: true });
for (const name of readdirSync('dist/esm').filter((file) => /\.d\.ts(\.map)?$/.test(file))) {
  cpSync(`dist/esm/${name}`, `dist/cjs/${name}`);
}
writeFileSync('dist/cjs/package.json', '{ "type": "commonjs" }\n');
