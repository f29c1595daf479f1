/** Starts the page: finds out how to connect, then draws the chat or the form to sign in. */
import './prefix';
import { createRoot } from 'react-dom/client';
import { App } from './app';
import { chosenClient, type Credentials, ensureRandomUuid, findCredentials, ownerOfToken, signOut } from './config';
import { loadHighlighter } from './markdown/highlighter';
import { Setup } from './setup';
import { applySavedTheme } from './theme';
import './styles.css';

const root = createRoot(document.getElementById('root') as HTMLElement);

function leave(): void {
  signOut();
  location.reload();
}

async function start(): Promise<void> {
  ensureRandomUuid();
  applySavedTheme();
  try {
    const credentials = await findCredentials();
    if (credentials) await chat(credentials);
    else root.render(<Setup onDone={() => void start()} />);
  } catch (error) {
    root.render(<Setup problem={(error as Error).message} onDone={() => void start()} />);
  }
  setTimeout(() => void loadHighlighter(), 0);
}

async function chat(credentials: Credentials): Promise<void> {
  const owner = credentials.kind === 'token' ? await ownerOfToken(credentials.token) : undefined;
  const signIn = (): void => root.render(<Setup onDone={() => location.reload()} onCancel={() => location.reload()} />);
  root.render(
    <App credentials={credentials} name={owner ?? chosenClient()} onSignIn={signIn} onSignOut={credentials.kind === 'key' ? undefined : leave} />,
  );
}

void start();
