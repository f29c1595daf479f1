/** A block of code: its language, colours, and a button that copies it. */
import { memo, type ReactNode, useMemo, useSyncExternalStore } from 'react';
import { CopyButton } from '../copy';
import { type Highlight, highlighter, onHighlighter } from './highlighter';

/** Above this, code that still grows is coloured only once it is complete. */
const COLOURED_LIVE = 24_000;

export const CodeBlock = memo(function CodeBlock(props: { code: string; language: string | undefined; live: boolean }): ReactNode {
  const { code, live } = props;
  const language = /^[\w+#.-]+/.exec(props.language ?? '')?.[0].toLowerCase() ?? '';
  const highlight = useSyncExternalStore(onHighlighter, highlighter);
  const coloured = useMemo(() => colours(highlight, language, code, live), [highlight, language, code, live]);
  return (
    <figure className="code">
      <figcaption>
        <span>{language || 'text'}</span>
        <CopyButton text={code} label="Copy code" />
      </figcaption>
      <pre tabIndex={0} aria-label={language ? `Code, ${language}` : 'Code'} role="region">
        <code>{coloured}</code>
      </pre>
    </figure>
  );
});

function colours(highlight: Highlight | undefined, language: string, code: string, live: boolean): ReactNode {
  if (!highlight || !language || (live && code.length > COLOURED_LIVE)) return code;
  return highlight(language, code);
}
