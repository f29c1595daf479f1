/** Markdown as blocks, parsed again only where the text still grows. */
import { Marked, type Token, type TokenizerAndRendererExtension, type Tokens } from 'marked';

/** Formulas are shown as they were written: what looks like emphasis or an escape in them is none. */
const inlineMath: TokenizerAndRendererExtension = {
  name: 'math',
  level: 'inline',
  start: (text) => text.search(/\$|\\\(/),
  tokenizer(text) {
    const found = /^\\\((.+?)\\\)/s.exec(text) ?? /^\$\$(.+?)\$\$/s.exec(text) ?? /^\$(?!\s)([^$\n]*?[^\s\\$])\$(?!\d)/.exec(text);
    return found ? { type: 'math', raw: found[0], text: found[0] } : undefined;
  },
};

const blockMath: TokenizerAndRendererExtension = {
  name: 'mathBlock',
  level: 'block',
  start: (text) => text.search(/^(?:\$\$|\\\[)/m),
  tokenizer(text) {
    const found = /^\$\$\s*\n?(.+?)\n?\s*\$\$(?:\n|$)/s.exec(text) ?? /^\\\[\s*\n?(.+?)\n?\s*\\\](?:\n|$)/s.exec(text);
    return found ? { type: 'mathBlock', raw: found[0], text: found[1] ?? '' } : undefined;
  },
};

const marked = new Marked({ gfm: true, extensions: [inlineMath, blockMath] } as never);
marked.use({ extensions: [inlineMath, blockMath] });

export interface Parsed {
  text: string;
  /** Blocks that more text cannot change; the same objects from call to call. */
  settled: readonly Token[];
  /** Where in the text the blocks that may still change begin. */
  from: number;
  growing: readonly Token[];
  /** The depth of the first heading, and the level of the last one, among the settled blocks. */
  headings: Headings;
}

interface Headings {
  first: number | undefined;
  level: number;
}

/** The page has the first level of headings, and each message the second. */
const MESSAGE_LEVEL = 2;

const NOTHING: Parsed = { text: '', settled: [], from: 0, growing: [], headings: { first: undefined, level: MESSAGE_LEVEL } };

const levels = new WeakMap<Token, number>();

/** The level of a heading on the page: whatever number of # a text begins with, no level is left out. */
export function levelOf(token: Tokens.Heading): number {
  return levels.get(token) ?? Math.min(6, token.depth + MESSAGE_LEVEL);
}

function setLevels(tokens: readonly Token[], before: Headings): Headings {
  let { first, level } = before;
  for (const token of tokens) {
    if (token.type !== 'heading') continue;
    const { depth } = token as Tokens.Heading;
    first ??= depth;
    level = Math.min(6, level + 1, Math.max(MESSAGE_LEVEL + 1, MESSAGE_LEVEL + 1 + depth - first));
    levels.set(token, level);
  }
  return { first, level };
}

/** Parse `text`; what `before` has settled is kept when the text only grew. */
export function parse(given: string, before: Parsed = NOTHING): Parsed {
  const text = given.replace(/\r\n?/g, '\n');
  if (text === before.text) return before;
  const start = text.startsWith(before.text) ? before : NOTHING;
  const tokens = marked.lexer(text.slice(start.from));
  // The last block may still become another one, as a line below a paragraph makes it a heading.
  const last = tokens.findLastIndex((token) => token.type !== 'space');
  const done = tokens.slice(0, Math.max(0, last));
  const growing = tokens.slice(Math.max(0, last));
  const headings = setLevels(done, start.headings);
  setLevels(growing, headings);
  return {
    text,
    settled: done.length > 0 ? [...start.settled, ...done] : start.settled,
    from: start.from + done.reduce((length, token) => length + token.raw.length, 0),
    growing,
    headings,
  };
}

const DEFINITION = /^ {0,3}\[[^\]]+\]: /m;

/** The blocks of a text that will not grow. Definitions of links at its end count from its beginning. */
export function parseWhole(text: string, before: Parsed | undefined): Parsed {
  return DEFINITION.test(text) ? parse(text) : parse(text, before);
}

/** `link.href` if a page may offer it: the agent's text decides where it leads. */
export function safeHref(href: string): string | undefined {
  try {
    const { protocol, href: full } = new URL(href);
    return ['http:', 'https:', 'mailto:', 'tel:'].includes(protocol) ? full : undefined;
  } catch {
    // Relative addresses would lead into the gateway.
    return undefined;
  }
}

const entities = new Map<string, string>();

/** The text with entities such as `&amp;` as the characters they stand for. */
export function decoded(text: string): string {
  if (!text.includes('&')) return text;
  return text.replace(/&(?:#x?[\da-f]{1,6}|[a-z][\da-z]{1,30});/gi, (entity) => {
    let character = entities.get(entity);
    if (character === undefined) {
      // A document of its own: nothing in it is run or loaded.
      character = new DOMParser().parseFromString(entity, 'text/html').body.textContent ?? entity;
      entities.set(entity, character);
    }
    return character;
  });
}

export type { Token, Tokens };
