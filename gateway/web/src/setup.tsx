/** What the page shows when the gateway gives it no development key, or when the person wants another way in. */
import { type FormEvent, type ReactNode, useState } from 'react';
import { ownerOfToken, keepToken, keepTokenUrl } from './config';

interface Props {
  problem?: string | undefined;
  /** Credentials are there now. */
  onDone: () => void;
  onCancel?: (() => void) | undefined;
}

export function Setup({ problem: given, onDone, onCancel }: Props): ReactNode {
  const [problem, setProblem] = useState(given);
  const [token, setToken] = useState('');
  const [url, setUrl] = useState('');
  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    try {
      if (token.trim()) {
        await ownerOfToken(token.trim());
        keepToken(token.trim());
      } else {
        keepTokenUrl(new URL(url.trim(), location.href).href);
      }
      onDone();
    } catch (error) {
      setProblem((error as Error).message);
    }
  };
  return (
    <main className="setup">
      <h1>Sign in</h1>
      <p>
        Paste a token that your application or <code>selfhost-transport token</code> has issued, or name the address where your
        application hands tokens out.
      </p>
      {problem && (
        <p className="notice error" role="alert">
          {problem}
        </p>
      )}
      <form onSubmit={(event) => void submit(event)}>
        <label htmlFor="token">Token</label>
        <textarea id="token" rows={4} value={token} onChange={(event) => setToken(event.target.value)} autoFocus spellCheck={false} aria-describedby="token-hint" />
        <p className="hint" id="token-hint">
          An Ably token or a JWT. It is kept in this tab only.
        </p>
        <label htmlFor="token-url">or token address</label>
        <input id="token-url" type="text" placeholder="/auth/token" value={url} onChange={(event) => setUrl(event.target.value)} aria-describedby="url-hint" />
        <p className="hint" id="url-hint">
          It is called with <code>?clientId=…</code> and answers with an Ably token, a token request or a JWT. An address on another
          host must be one of <code>allowed_origins</code> in the gateway’s configuration.
        </p>
        <div className="actions">
          <button type="submit" className="primary" disabled={!token.trim() && !url.trim()}>
            Connect
          </button>
          {onCancel && (
            <button type="button" onClick={onCancel}>
              Back
            </button>
          )}
        </div>
      </form>
      {!onCancel && (
        <p className="hint">
          On the machine of the gateway itself, <code>selfhost-transport dev</code> lets this page in without a token.
        </p>
      )}
    </main>
  );
}
