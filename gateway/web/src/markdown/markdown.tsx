/** Draws Markdown as React elements. No HTML is ever made from it: tags in the text are shown as text. */
import { createElement, type JSX, memo, type ReactNode, useRef } from 'react';
import { pictureIn } from '../attachments';
import { CodeBlock } from './code';
import { decoded, levelOf, parse, type Parsed, parseWhole, safeHref, type Token, type Tokens } from './parse';

/** `live`: the text still grows. */
export const Markdown = memo(function Markdown({ text, live }: { text: string; live: boolean }): ReactNode {
  const known = useRef<Parsed>(undefined);
  known.current = live ? parse(text, known.current) : parseWhole(text, known.current);
  const { settled, growing } = known.current;
  return (
    <div className={live ? 'markdown live' : 'markdown'} data-testid="text">
      {/* One list: a block that settles keeps its element. */}
      {[...settled, ...growing].map((token, index) => (
        <Block key={index} token={token} live={live && index >= settled.length} />
      ))}
    </div>
  );
});

const Block = memo(function Block({ token, live }: { token: Token; live: boolean }): ReactNode {
  return block(token, live);
});

function blocks(tokens: Token[] | undefined, live: boolean): ReactNode {
  return tokens?.map((token, index) => <Block key={index} token={token} live={live} />);
}

function block(token: Token, live: boolean): ReactNode {
  switch (token.type) {
    case 'space':
    case 'def':
      return null;
    case 'hr':
      return <hr />;
    case 'heading':
      return createElement(`h${levelOf(token as Tokens.Heading)}`, null, inline(token.tokens));
    case 'code':
      return <CodeBlock code={(token as Tokens.Code).text} language={(token as Tokens.Code).lang} live={live} />;
    case 'blockquote':
      return <blockquote>{blocks(token.tokens, live)}</blockquote>;
    case 'list':
      return <List list={token as Tokens.List} live={live} />;
    case 'table':
      return <Table table={token as Tokens.Table} />;
    case 'mathBlock':
      return <pre className="math">{(token as Tokens.Generic)['text']}</pre>;
    case 'paragraph':
      return <p>{inline(token.tokens)}</p>;
    case 'html':
      return <p>{token.raw.trim()}</p>;
    default:
      // Text of a tight list, and whatever a later version may add.
      return 'tokens' in token && token.tokens ? <>{inline(token.tokens)}</> : decoded(token.raw);
  }
}

function List({ list, live }: { list: Tokens.List; live: boolean }): ReactNode {
  const items = list.items.map((item, index) => (
    <li key={index} className={item.task ? 'task' : undefined}>
      {item.task && <input type="checkbox" checked={item.checked ?? false} readOnly disabled aria-label={item.checked ? 'done' : 'to do'} />}
      {item.task ? blocks(item.tokens.filter((token) => token.type !== 'checkbox'), live) : blocks(item.tokens, live)}
    </li>
  ));
  return list.ordered ? <ol start={Number(list.start) || 1}>{items}</ol> : <ul>{items}</ul>;
}

function Table({ table }: { table: Tokens.Table }): ReactNode {
  const cell = (Tag: 'th' | 'td') => (each: Tokens.TableCell, index: number): JSX.Element => (
    <Tag key={index} className={each.align ? `align-${each.align}` : undefined}>
      {inline(each.tokens)}
    </Tag>
  );
  return (
    <div className="table" tabIndex={0} role="region" aria-label="Table">
      <table>
        <thead>
          <tr>{table.header.map(cell('th'))}</tr>
        </thead>
        <tbody>
          {table.rows.map((row, index) => (
            <tr key={index}>{row.map(cell('td'))}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inline(tokens: Token[] | undefined): ReactNode {
  return tokens?.map((token, index) => <Inline key={index} token={token} />);
}

function Inline({ token }: { token: Token }): ReactNode {
  switch (token.type) {
    case 'strong':
      return <strong>{inline(token.tokens)}</strong>;
    case 'em':
      return <em>{inline(token.tokens)}</em>;
    case 'del':
      return <del>{inline(token.tokens)}</del>;
    case 'codespan':
      return <code>{token.text}</code>;
    case 'math':
      return <code className="math">{(token as Tokens.Generic)['text']}</code>;
    case 'br':
      return <br />;
    case 'link':
      return <Link href={(token as Tokens.Link).href}>{inline(token.tokens)}</Link>;
    case 'image':
      return <Image image={token as Tokens.Image} />;
    case 'html':
      return <>{token.raw}</>;
    default:
      return 'tokens' in token && token.tokens ? <>{inline(token.tokens)}</> : <>{decoded('text' in token ? String(token.text) : token.raw)}</>;
  }
}

export function Link({ href, children }: { href: string; children: ReactNode }): ReactNode {
  const safe = safeHref(decoded(href));
  if (!safe) return <>{children}</>;
  return (
    <a href={safe} target="_blank" rel="noopener noreferrer nofollow">
      {children}
    </a>
  );
}

/** A picture that is in the text itself; others are links. */
function Image({ image }: { image: Tokens.Image }): ReactNode {
  const name = image.text || image.title || 'image';
  if (pictureIn(image.href)) return <img src={image.href} alt={image.text} />;
  return <Link href={image.href}>{name}</Link>;
}
