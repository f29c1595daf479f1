/** Who this person is, and how to be another. */
import { type FormEvent, type ReactNode, useState } from 'react';
import { changeClient } from './config';
import { Icon } from './icons';

interface Props {
  me: string;
  /** The credentials let the person choose a name. */
  mayChoose: boolean;
  onSignIn: () => void;
  onSignOut: (() => void) | undefined;
}

export function Person({ me, mayChoose, onSignIn, onSignOut }: Props): ReactNode {
  const [changing, setChanging] = useState(false);
  const [name, setName] = useState(me);
  const change = (event: FormEvent): void => {
    event.preventDefault();
    if (name.trim()) changeClient(name.trim());
  };
  return (
    <div className="person">
      <Icon name="person" />
      {changing ? (
        <form onSubmit={change}>
          <input value={name} autoFocus onChange={(event) => setName(event.target.value)} aria-label="Your name" />
          <button type="submit">Save</button>
        </form>
      ) : (
        <>
          <span className="grow">
            <span className="unseen">You are </span>
            {me}
          </span>
          {mayChoose && (
            <button type="button" className="link" onClick={() => setChanging(true)} title="Your name, the same in all tabs of this browser">
              Rename
            </button>
          )}
          <button type="button" className="link" onClick={onSignOut ?? onSignIn}>
            {onSignOut ? 'Sign out' : 'Sign in'}
          </button>
        </>
      )}
    </div>
  );
}
