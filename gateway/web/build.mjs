// Builds the chat page into ../static: index.html, app.js, app.css, what is loaded later, and the licences of all of it.
import { createHash } from 'node:crypto';
import { cp, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const here = path.dirname(fileURLToPath(import.meta.url));
const out = path.join(here, '..', 'static');
const client = path.join(here, '..', '..', 'clients', 'javascript', 'src');

async function filesOf(dir) {
  const names = await readdir(dir, { recursive: true, withFileTypes: true });
  return names.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
}

/** Everything the bundle is made from; its hash lets a test notice a bundle older than its sources. */
async function sourceHash() {
  const roots = ['build.mjs', 'index.html', 'package-lock.json'].map((name) => path.join(here, name));
  const files = [...roots, ...(await filesOf(path.join(here, 'public'))), ...(await filesOf(path.join(here, 'src'))), ...(await filesOf(client))];
  const named = files.map((file) => [path.relative(here, file).replaceAll(path.sep, '/'), file]);
  const hash = createHash('sha256');
  for (const [name, file] of named.sort(([one], [other]) => (one < other ? -1 : 1))) {
    hash.update(name).update('\0').update(await readFile(file)).update('\0');
  }
  return hash.digest('hex');
}

/** The page uses the client of this repository; what that imports is what the page imports, React once. */
const clientOfThisRepository = {
  name: 'client-of-this-repository',
  setup({ onResolve, resolve }) {
    onResolve({ filter: /^selfhost-transport\// }, ({ path: name }) => ({
      path: path.join(client, name === 'selfhost-transport/react' ? 'react.tsx' : 'vercel.ts'),
    }));
    onResolve({ filter: /^[^.]/ }, ({ path: name, importer, kind }) =>
      importer.startsWith(client + path.sep) ? resolve(name, { resolveDir: here, kind }) : undefined,
    );
  },
};

/** Directory of the npm package a bundled file belongs to, or null for our own sources. */
function packageDirOf(input) {
  const at = input.lastIndexOf('node_modules/');
  if (at < 0) return null;
  const rest = input.slice(at + 'node_modules/'.length).split('/');
  const name = rest[0].startsWith('@') ? rest.slice(0, 2).join('/') : rest[0];
  return path.join(here, input.slice(0, at), 'node_modules', name);
}

async function licenceOf(dir) {
  const manifest = JSON.parse(await readFile(path.join(dir, 'package.json'), 'utf8'));
  const file = (await readdir(dir)).find((name) => /^(licen[cs]e|copying)(\.|$)/i.test(name));
  const text = file ? (await readFile(path.join(dir, file), 'utf8')).trim() : `Licensed under ${manifest.license}.`;
  return { title: `${manifest.name} ${manifest.version} (${manifest.license})`, text };
}

/** Only packages that left bytes in the output are listed: what was shaken out is not distributed. */
async function writeLicences(metafile) {
  const dirs = new Set();
  for (const output of Object.values(metafile.outputs)) {
    for (const [input, { bytesInOutput }] of Object.entries(output.inputs)) {
      const dir = bytesInOutput > 0 ? packageDirOf(input) : null;
      if (dir) dirs.add(dir);
    }
  }
  const rule = '='.repeat(80);
  const sections = [];
  for (const dir of [...dirs].sort()) {
    const { title, text } = await licenceOf(dir);
    sections.push(`${rule}\n${title}\n${rule}\n\n${text}\n`);
  }
  const intro = 'The scripts contain the following packages, under the licences given with each.\n';
  await writeFile(path.join(out, 'THIRD_PARTY_LICENSES.txt'), [intro, ...sections].join('\n'));
}

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
const result = await build({
  absWorkingDir: here,
  entryPoints: { app: 'src/main.tsx' },
  outdir: out,
  bundle: true,
  splitting: true,
  chunkNames: '[name]',
  plugins: [clientOfThisRepository],
  alias: { ai: path.join(here, 'src', 'tool-parts.ts') },
  minify: true,
  format: 'esm',
  target: ['es2022'],
  jsx: 'automatic',
  charset: 'utf8',
  legalComments: 'none',
  define: { 'process.env.NODE_ENV': '"production"' },
  banner: { js: `/* sources ${await sourceHash()}; licences in THIRD_PARTY_LICENSES.txt */` },
  metafile: true,
  logLevel: 'info',
});
// A script of its own, that nothing is imported into.
await build({ entryPoints: [path.join(here, 'src', 'push-worker.js')], outdir: out, minify: true, charset: 'utf8', logLevel: 'info' });
await cp(path.join(here, 'index.html'), path.join(out, 'index.html'));
// What a home screen shows of the page.
await cp(path.join(here, 'public'), out, { recursive: true });
await writeLicences(result.metafile);
