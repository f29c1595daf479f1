/** Which answers are running, those of all, with a stop for each and for all of one's own. */
import { type ReactNode, useEffect, useRef, useState } from 'react';
import { Icon } from './icons';

export interface RunningTurn {
  turnId: string;
  owner: string;
  mine: boolean;
  question: string | undefined;
  suspended: boolean;
}

interface Props {
  turns: readonly RunningTurn[];
  onStop: (turnId: string) => void;
  onStopMine: () => void;
}

export function TurnsPanel({ turns, onStop, onStopMine }: Props): ReactNode {
  const [open, setOpen] = useState(false);
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) return;
    const away = (event: Event): void => {
      if (!place.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener('pointerdown', away);
    document.addEventListener('focusin', away);
    return () => {
      document.removeEventListener('pointerdown', away);
      document.removeEventListener('focusin', away);
    };
  }, [open]);
  if (turns.length === 0) return null;
  const mine = turns.filter((turn) => turn.mine).length;
  return (
    <div className="turns" ref={place}>
      <button type="button" className="chip" onClick={() => setOpen(!open)} aria-expanded={open} data-testid="open-turns">
        <i className="mark runs" />
        <span className="whose">{summary(mine, turns.length - mine)}</span>
        <span className="only-narrow">{turns.length}</span> running
      </button>
      {open && (
        <div className="panel">
          <ul aria-label="Running answers">
            {turns.map((turn) => (
              <li key={turn.turnId} data-testid="running-turn">
                <span>
                  <strong>{turn.mine ? 'You' : turn.owner || 'Someone'}</strong>
                  <span className="soft">{turn.suspended ? 'waits for an approval' : (turn.question ?? 'an earlier question')}</span>
                </span>
                <button type="button" className="stop" onClick={() => onStop(turn.turnId)} aria-label={`Stop the answer to ${turn.question ?? turn.owner}`}>
                  <Icon name="stop" /> Stop
                </button>
              </li>
            ))}
          </ul>
          {mine > 1 && (
            <button type="button" className="stop all" onClick={onStopMine}>
              <Icon name="stop" /> Stop all {mine} of mine
            </button>
          )}
        </div>
      )}
    </div>
  );
}

function summary(mine: number, others: number): string {
  return [mine && `${mine} of yours`, others && `${others} of others`].filter(Boolean).join(', ');
}
