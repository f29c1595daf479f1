/** Drawing at the pace of the screen, however fast the tokens come. */
import { useEffect, useRef, useState } from 'react';

/** What `read` gives, looked at again once per animation frame after a render. */
export function useFramed<T>(read: () => T): T {
  const [shown, setShown] = useState(read);
  const latest = useRef(read);
  const frame = useRef(0);
  useEffect(() => {
    latest.current = read;
    frame.current ||= requestAnimationFrame(() => {
      frame.current = 0;
      setShown(latest.current());
    });
  });
  useEffect(
    () => () => {
      cancelAnimationFrame(frame.current);
      frame.current = 0;
    },
    [],
  );
  return shown;
}
