/** Follows the end of a growing conversation, unless the reader scrolled up; keeps the place when older messages come. */
import { type RefObject, useCallback, useEffect, useLayoutEffect, useRef, useState } from 'react';

/** Within this distance of the end, in pixels, a reader is at the end. */
const NEAR_END = 48;
/** Older messages are loaded this far before the beginning is reached. */
const NEAR_START = 600;

interface Scrolling {
  list: RefObject<HTMLElement | null>;
  column: RefObject<HTMLDivElement | null>;
  /** The reader has scrolled up. */
  awayFromEnd: boolean;
  toEnd: () => void;
}

/** `first`: the row on top. `mayLoad`: there are older messages, and none are being loaded. */
export function useScrolling(first: string | undefined, mayLoad: boolean, loadOlder: () => void): Scrolling {
  const list = useRef<HTMLElement>(null);
  const column = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const [awayFromEnd, setAwayFromEnd] = useState(false);

  const toEnd = useCallback(() => {
    follows.current = true;
    setAwayFromEnd(false);
    if (list.current) list.current.scrollTop = list.current.scrollHeight;
  }, []);

  useFollowing(list, column, follows, setAwayFromEnd);
  useKeepPlace(list, follows, first);

  useEffect(() => {
    const element = list.current;
    if (!element || !mayLoad) return;
    const check = (): void => {
      if (element.scrollTop < NEAR_START) loadOlder();
    };
    check();
    element.addEventListener('scroll', check, { passive: true });
    return () => element.removeEventListener('scroll', check);
  }, [mayLoad, loadOlder, first]);

  return { list, column, awayFromEnd, toEnd };
}

function useFollowing(
  list: RefObject<HTMLElement | null>,
  column: RefObject<HTMLElement | null>,
  follows: RefObject<boolean>,
  setAwayFromEnd: (away: boolean) => void,
): void {
  useEffect(() => {
    const element = list.current;
    if (!element || !column.current) return;
    let top = element.scrollTop;
    const scrolled = (): void => {
      const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END;
      // The end moves away by itself while text comes; only the reader moves up.
      if (atEnd) follows.current = true;
      else if (element.scrollTop < top) follows.current = false;
      top = element.scrollTop;
      setAwayFromEnd(!follows.current && !atEnd);
    };
    const grown = new ResizeObserver(() => {
      if (follows.current) element.scrollTop = element.scrollHeight;
    });
    grown.observe(column.current);
    grown.observe(element);
    element.addEventListener('scroll', scrolled, { passive: true });
    return () => {
      grown.disconnect();
      element.removeEventListener('scroll', scrolled);
    };
  }, [list, column, follows, setAwayFromEnd]);
}

/** What comes above the first row, older rows or a note, moves nothing on the screen. */
function useKeepPlace(list: RefObject<HTMLElement | null>, follows: RefObject<boolean>, first: string | undefined): void {
  const before = useRef<{ first: string | undefined; top: number }>({ first: undefined, top: 0 });
  useLayoutEffect(() => {
    const element = list.current;
    if (!element) return;
    const known = document.getElementById(`row-${before.current.first}`);
    if (follows.current) element.scrollTop = element.scrollHeight;
    else if (known) element.scrollTop += known.offsetTop - before.current.top;
    before.current = { first, top: document.getElementById(`row-${first}`)?.offsetTop ?? 0 };
  });
}
