// A reporter of `node --test` that prints one JSON object per test, as tests/compat/site.py reads them.
import { basename } from 'node:path';

const UNSUPPORTED = /^not supported: (.*) — (.*)$/;

export default async function* compatReporter(source) {
  for await (const { type, data } of source) {
    if ((type !== 'test:pass' && type !== 'test:fail') || data.nesting > 0) continue;
    // A suite that cannot be loaded is a test named like its file.
    const broken = type === 'test:fail' && basename(data.name) === basename(data.file ?? '');
    const [, feature = data.name, reason = ''] = data.name.match(UNSUPPORTED) ?? [];
    const error = type === 'test:fail' ? String(data.details.error?.cause?.stack ?? data.details.error) : '';
    yield `case ${JSON.stringify({ feature: broken ? 'the suite loads' : feature, ok: type === 'test:pass', error, reason })}\n`;
  }
}
