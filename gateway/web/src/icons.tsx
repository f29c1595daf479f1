/** The page's pictograms, as lines on a grid of 24. They say nothing to screen readers: their buttons do. */
import type { ReactNode } from 'react';

const PATHS = {
  menu: 'M4 7h16M4 12h16M4 17h16',
  plus: 'M12 5v14M5 12h14',
  search: 'M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4',
  copy: 'M9 9h10v10H9zM5 15V5h10',
  check: 'M5 13l4 4L19 7',
  send: 'M12 19V5M6 11l6-6 6 6',
  clip: 'M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.3 3.3 0 0 1 4.7 4.7l-8.500 8.500a1.700 1.700 0 0 1-2.400-2.400L14.500 7.500',
  pencil: 'M4 20h4L19 9l-4-4L4 16zM13 7l4 4',
  again: 'M20 12a8 8 0 1 1-2.300-5.700M20 4v5h-5',
  left: 'M14 6l-6 6 6 6',
  right: 'M10 6l6 6-6 6',
  down: 'M12 5v14M6 13l6 6 6-6',
  close: 'M6 6l12 12M18 6L6 18',
  share: 'M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1',
  tool: 'M14.500 6.500a4 4 0 0 0-5.300 5L4 16.700 7.300 20l5.200-5.200a4 4 0 0 0 5-5.300l-2.500 2.500-2.500-.5-.5-2.500z',
  theme: 'M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16',
  person: 'M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 20c1-4 4-6 8-6s7 2 8 6',
  bell: 'M6 17V11a6 6 0 0 1 12 0v6l2 2H4zM10 21h4',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
} as const;

export function Icon({ name }: { name: keyof typeof PATHS | 'stop' }): ReactNode {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      {name === 'stop' ? <rect className="filled" x="6" y="6" width="12" height="12" rx="2" /> : <path d={PATHS[name]} />}
    </svg>
  );
}
