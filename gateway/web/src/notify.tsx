/** The switch for pushes; absent where the browser or the gateway has none. */
import { type ReactNode, useEffect, useSyncExternalStore } from 'react';
import { Icon } from './icons';
import type { Push } from './push';

export function Notify({ push }: { push: Push }): ReactNode {
  const state = useSyncExternalStore(push.subscribe, push.get);
  const problem = useSyncExternalStore(push.problem.subscribe, push.problem.get);
  useEffect(() => void push.start().catch(() => undefined), [push]);
  if (state === 'absent') return null;
  const change = (): void => void (state === 'on' ? push.turnOff() : push.turnOn());
  return (
    <div className="notify">
      <label>
        <Icon name="bell" />
        <span className="grow">Notify me of answers when I have left</span>
        <input type="checkbox" role="switch" checked={state === 'on'} disabled={state === 'busy' || state === 'denied'} onChange={change} />
      </label>
      {state === 'denied' && <p className="note">This browser does not allow notifications of this page.</p>}
      {problem && (
        <p className="note" role="alert">
          {problem}
        </p>
      )}
    </div>
  );
}
