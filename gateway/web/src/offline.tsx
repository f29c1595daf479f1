/** Says that there is no connection, what is unsent, and lets the person try at once. */
import { type ReactNode, useEffect, useRef } from 'react';
import { announce } from './announcer';
import type { Connected } from './connection';

interface Props {
  connected: Connected;
  /** Messages that are sent once there is a connection. */
  unsent: number;
  onRetry: () => void;
}

export function Offline({ connected, unsent, onRetry }: Props): ReactNode {
  const { state, reason, before } = connected;
  const lost = state !== 'connected' && (before || !['initialized', 'connecting'].includes(state));
  const announced = useRef(false);
  useEffect(() => {
    if (lost !== announced.current) announce(lost ? 'The connection is lost' : 'Connected again');
    announced.current = lost;
  }, [lost]);
  if (!lost) return null;
  const refused = state === 'failed';
  return (
    <div className={refused ? 'notice error' : 'notice'} data-testid="offline">
      <span className="grow">
        {refused ? `The gateway refused the connection: ${reason?.message ?? 'it gave no reason'}` : 'No connection. Trying again by itself.'}
        {unsent > 0 && ` ${unsent === 1 ? 'One message is' : `${unsent} messages are`} sent when it is back.`}
      </span>
      <button type="button" onClick={onRetry}>
        Try now
      </button>
    </div>
  );
}
