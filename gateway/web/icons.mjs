// Draws public/icon.svg as the PNG files that home screens want: `node icons.mjs`, with a Chromium on the PATH.
import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const folder = path.join(path.dirname(fileURLToPath(import.meta.url)), 'public');
const svg = await readFile(path.join(folder, 'icon.svg'), 'utf8');
const scratch = await mkdtemp(path.join(tmpdir(), 'icons-'));
try {
  for (const size of [180, 192, 512]) {
    const page = path.join(scratch, 'icon.html');
    await writeFile(page, `<body style="margin:0;width:${size}px">${svg}</body>`);
    execFileSync(process.env.CHROMIUM ?? 'chromium', [
      '--headless', '--no-sandbox', '--hide-scrollbars', '--force-device-scale-factor=1', `--window-size=${size},${size}`,
      `--screenshot=${path.join(folder, `icon-${size}.png`)}`, pathToFileURL(page).href,
    ]);
  }
} finally {
  await rm(scratch, { recursive: true });
}
