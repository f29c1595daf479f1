// Reads `{ui: [chunk], agui: [event], old: [event]}` as JSON from stdin; ends with status 1 where a published schema refuses one.
// `old`: how a run ends for AG-UI clients before 1.0.
import { text } from 'node:stream/consumers';
import { createRequire } from 'node:module';
import { EventSchemas } from '@ag-ui/core/schemas';

const VERSIONS = { 7: await import('ai'), 6: await import('ai6'), '6.0.1': await import('ai6-1') };
// The core that the client 0.0.59 brings.
const requireOld = createRequire(createRequire(import.meta.url).resolve('agui-0059'));
const { EventSchemas: OldSchemas } = requireOld('@ag-ui/core');
const { ui, agui, old } = JSON.parse(await text(process.stdin));
const wrong = [];

for (const [version, { uiMessageChunkSchema: given }] of Object.entries(VERSIONS)) {
  const schema = typeof given === 'function' ? given() : given;
  for (const chunk of ui) {
    const { success, error } = await schema.validate(chunk);
    if (!success) wrong.push(`ai ${version}: ${JSON.stringify(chunk)}: ${error}`);
  }
}
const described = (events) => events.filter(({ type, outcome }) => type !== 'RUN_FINISHED' || outcome === undefined);
for (const event of [...described(agui), ...old]) {
  const { success, error } = OldSchemas.safeParse(event);
  if (!success) wrong.push(`ag-ui 0.0.59: ${JSON.stringify(event)}: ${error}`);
}
// 1.1 is not published; it adds one optional field, so what 1.0 takes as it is, it takes too.
for (const event of agui) {
  const { success, data, error } = EventSchemas.safeParse(event);
  // What the schema does not describe it takes away.
  if (!success || JSON.stringify(sorted(data)) !== JSON.stringify(sorted(event))) wrong.push(`ag-ui: ${JSON.stringify(event)}: ${error ?? JSON.stringify(data)}`);
}
console.log(wrong.slice(0, 20).join('\n') || `${ui.length} chunks, ${agui.length + old.length} events`);
process.exit(wrong.length ? 1 : 0);

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}
