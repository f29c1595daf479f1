/** Starts the page: finds out how to connect, then draws the chat or the setup form. */
import { createRoot } from 'react-dom/client';
import { App } from './app';
import { DEFAULT_WAKE_URL, ensureRandomUuid, fetchPageConfig, readPlace, savedTokenUrl, saveTokenUrl } from './config';
import { applySavedTheme } from './header';
import { Setup } from './setup';
import './styles.css';

async function start(): Promise<void> {
  ensureRandomUuid();
  applySavedTheme();
  const root = createRoot(document.getElementById('root') as HTMLElement);
  const place = readPlace();
  document.title = `${place.session} · chat`;
  const chooseTokenUrl = (url: string | null): void => {
    saveTokenUrl(url);
    location.reload();
  };
  try {
    const config = await fetchPageConfig();
    if (config) {
      root.render(<App place={place} credentials={{ kind: 'key', key: config.key }} wakeUrl={config.wakeUrl} />);
      return;
    }
    const url = savedTokenUrl();
    if (!url) root.render(<Setup onChoose={chooseTokenUrl} />);
    else {
      const forget = () => chooseTokenUrl(null);
      root.render(
        <App place={place} credentials={{ kind: 'tokenUrl', url }} wakeUrl={DEFAULT_WAKE_URL} onForget={forget} />,
      );
    }
  } catch (error) {
    root.render(<Setup problem={error instanceof Error ? error.message : String(error)} onChoose={chooseTokenUrl} />);
  }
}

void start();
