/** How the connection stands, and the ways back to it. */
import type * as Ably from 'ably';
import { useEffect, useState } from 'react';

export interface Connected {
  state: Ably.ConnectionState;
  reason: Ably.ErrorInfo | undefined;
  /** Was connected before. */
  before: boolean;
}

export function useConnection(connection: Ably.Connection): Connected {
  const [now, setNow] = useState<Connected>({ state: connection.state, reason: undefined, before: connection.state === 'connected' });
  useEffect(() => {
    const update = (): void =>
      setNow((known) => {
        const { state } = connection;
        return { state, reason: connection.errorReason ?? undefined, before: known.before || state === 'connected' };
      });
    update();
    connection.on(update);
    return () => connection.off(update);
  }, [connection]);
  useEffect(() => {
    // A tab in the background is slowed down by the browser: when it comes back it looks at once.
    const look = (): void => {
      if (document.visibilityState === 'visible' && ['disconnected', 'suspended'].includes(connection.state)) connection.connect();
    };
    document.addEventListener('visibilitychange', look);
    window.addEventListener('online', look);
    return () => {
      document.removeEventListener('visibilitychange', look);
      window.removeEventListener('online', look);
    };
  }, [connection]);
  return now;
}
