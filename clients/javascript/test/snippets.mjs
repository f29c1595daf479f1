// The pages' code in `snippets/`, as the pages have it; what runs differs in the names of the packages that it imports.
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const here = fileURLToPath(new URL('.', import.meta.url));
const PAGES = `${here}snippets/`;
export const RUN = `${here}.build/snippets/`;
const IMPORT = /^(import .* from ')@ably\/ai-transport/gm;

export const names = readdirSync(PAGES);
export const pageOf = (name) => readFileSync(PAGES + name, 'utf8');
export const runOf = (name) => readFileSync(RUN + name, 'utf8');

mkdirSync(RUN, { recursive: true });
for (const name of names) writeFileSync(RUN + name, pageOf(name).replace(IMPORT, '$1selfhost-transport'));

await build({
  entryPoints: names.map((name) => RUN + name),
  outdir: `${here}.build/modules`, format: 'esm', jsx: 'automatic', outExtension: { '.js': '.mjs' }, logLevel: 'error',
});

/** The module of a snippet, by the beginning of its file's name. */
export function snippet(label) {
  const name = names.find((file) => file.startsWith(`${label}-`));
  return import(pathToFileURL(`${here}.build/modules/${name.replace(/\.jsx?$/, '.mjs')}`).href);
}
