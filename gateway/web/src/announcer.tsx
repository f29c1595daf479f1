/** What a screen reader says: answers that end, approvals that are needed, stops and failures. */
import { type ReactNode, useSyncExternalStore } from 'react';
import { Store } from './store';

interface Said {
  polite: string;
  urgent: string;
}

const said = new Store<Said>({ polite: '', urgent: '' });
let count = 0;

/** Have a sentence read out; an urgent one at once. */
export function announce(sentence: string, { urgent = false } = {}): void {
  count += 1;
  // The same sentence twice is no change, and so not read: a no-break space makes it one.
  const text = sentence + (count % 2 ? '\u00a0' : '');
  said.set({ ...said.get(), [urgent ? 'urgent' : 'polite']: text });
}

export function Announcer(): ReactNode {
  const { polite, urgent } = useSyncExternalStore(said.subscribe, said.get);
  return (
    <div className="unseen">
      <div role="status" aria-live="polite" data-testid="announced">
        {polite}
      </div>
      <div role="alert" aria-live="assertive" data-testid="announced-urgently">
        {urgent}
      </div>
    </div>
  );
}
