/** Draws the parts of one message: text, thoughts, tool calls, files and sources. */
import { memo, type ReactNode, useMemo } from 'react';
import { isToolUIPart } from './tool-parts';
import { nameOf, pictureIn } from './attachments';
import { Icon } from './icons';
import { Link, Markdown } from './markdown/markdown';
import type { Part } from './rows';
import { ToolCard } from './tool-card';

interface Props {
  parts: readonly Part[];
  /** The answer is still being written. */
  live: boolean;
  /** The turn can still be answered: an approval that was not given before a stop is asked for no more. */
  open: boolean;
  onApprove: (toolCallId: string, approved: boolean) => void;
}

export function Parts({ parts, live, open, onApprove }: Props): ReactNode {
  const last = parts.length - 1;
  return parts.map((part, index) => <OnePart key={index} part={part} live={live && index === last} open={open} onApprove={onApprove} />);
}

interface OneProps extends Omit<Props, 'parts'> {
  part: Part;
}

const OnePart = memo(function OnePart({ part, live, open, onApprove }: OneProps): ReactNode {
  if (isToolUIPart(part)) return <ToolCard part={part} open={open} onApprove={onApprove} />;
  switch (part.type) {
    case 'text':
      return part.text ? <Markdown text={part.text} live={live} /> : null;
    case 'reasoning':
      return (
        <details className="thoughts">
          <summary>{live ? 'Thinking…' : 'Thoughts'}</summary>
          <div className="plain">{part.text}</div>
        </details>
      );
    case 'file':
      return <File part={part} />;
    case 'source-url':
      return (
        <p className="source">
          <Link href={part.url}>{part.title ?? part.url}</Link>
        </p>
      );
    case 'source-document':
      return <p className="source">{part.title}</p>;
    default:
      return null;
  }
});

type FilePart = Extract<Part, { type: 'file' }>;

/** A picture, a text that unfolds, or a link to what the page cannot show. */
export function File({ part }: { part: FilePart }): ReactNode {
  const text = useMemo(() => textIn(part), [part]);
  const name = nameOf(part);
  if (pictureIn(part.url)) return <img className="picture" src={part.url} alt={name} />;
  if (text === undefined) {
    return (
      <p className="file">
        <Icon name="file" /> <Link href={part.url}>{name}</Link>
      </p>
    );
  }
  return (
    <details className="file">
      <summary>
        <Icon name="file" /> {name}
      </summary>
      <pre tabIndex={0}>{text}</pre>
    </details>
  );
}

function textIn({ url, mediaType }: FilePart): string | undefined {
  const found = /^data:[^,]*;base64,(.*)$/s.exec(url);
  if (!found || mediaType.startsWith('image/')) return undefined;
  try {
    const bytes = Uint8Array.from(atob(found[1] ?? ''), (letter) => letter.charCodeAt(0));
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
