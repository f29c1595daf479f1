/** What the page shows when the gateway gives it no development key. */
import { type FormEvent, type ReactNode, useState } from 'react';

/** Ask for a URL that issues Ably tokens, and say what the other way is. */
export function Setup({ problem, onChoose }: { problem?: string; onChoose: (url: string) => void }): ReactNode {
  const [url, setUrl] = useState('');
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    if (url.trim()) onChoose(new URL(url.trim(), location.href).href);
  };
  return (
    <main className="setup">
      <h1>Connect to this gateway</h1>
      {problem && (
        <p className="notice error" role="alert">
          {problem}
        </p>
      )}
      <p>
        This gateway hands out no development key. It does so only when started with{' '}
        <code>selfhost-transport dev</code>, and only to a browser on the same machine.
      </p>
      <form onSubmit={submit}>
        <label htmlFor="token-url">Token URL of your application</label>
        <input
          id="token-url"
          type="text"
          placeholder="https://app.example/auth/ably"
          value={url}
          onChange={(event) => setUrl(event.target.value)}
        />
        <p className="hint">
          It is called with <code>?clientId=…</code> and answers with an Ably token, token request or JWT. It is kept in
          this browser only.
        </p>
        <button type="submit" className="primary" disabled={!url.trim()}>
          Connect
        </button>
      </form>
    </main>
  );
}
