/** The colours of code come in a file of their own: it is loaded once the page is there, before any code is likely to be. */
import type { ReactNode } from 'react';

/** The code in coloured spans; the plain code for a language that is not known. */
export type Highlight = (language: string, code: string) => ReactNode;

let loaded: Highlight | undefined;
const waiting = new Set<() => void>();

export function highlighter(): Highlight | undefined {
  return loaded;
}

export function onHighlighter(changed: () => void): () => void {
  waiting.add(changed);
  return () => void waiting.delete(changed);
}

export async function loadHighlighter(): Promise<void> {
  ({ highlight: loaded } = await import('./highlight'));
  for (const changed of waiting) changed();
}
