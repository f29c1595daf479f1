/** Connects to the gateway and lays out the page. */
import * as Ably from 'ably';
import { AblyProvider } from 'ably/react';
import { type ReactNode, useCallback, useEffect, useState } from 'react';
import { Composer } from './composer';
import { type Credentials, type Place, ablyOptions } from './config';
import { Conversation } from './conversation';
import { Header } from './header';
import { ClientSessionProvider, codec, useClientSession, useView } from './session';
import { useTurns } from './turns';

/** Messages fetched at first, and by each "Show older". */
const PAGE = 50;

interface Props {
  place: Place;
  credentials: Credentials;
  wakeUrl: string;
  /** Gives up a token URL typed in earlier; absent when the gateway supplied the key. */
  onForget?: () => void;
}

/** The whole page for one session and one client. */
export function App({ place, credentials, wakeUrl, onForget }: Props): ReactNode {
  const [client] = useState(() => new Ably.Realtime(ablyOptions(place, credentials)));
  return (
    <AblyProvider client={client}>
      <ClientSessionProvider channelName={place.session} codec={codec}>
        <Chat place={place} wakeUrl={wakeUrl} client={client} {...(onForget ? { onForget } : {})} />
      </ClientSessionProvider>
    </AblyProvider>
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error || error instanceof Ably.ErrorInfo ? error.message : String(error);
}

/** A readable sentence for anything thrown: Ably errors carry a code worth showing. */
function describe(error: unknown): string {
  return error instanceof Ably.ErrorInfo ? `${error.message} (${error.code})` : messageOf(error);
}

interface ChatProps {
  place: Place;
  wakeUrl: string;
  client: Ably.Realtime;
  onForget?: () => void;
}

function Chat({ place, wakeUrl, client, onForget }: ChatProps): ReactNode {
  const [problem, setProblem] = useState<unknown>(null);
  const [editing, setEditing] = useState<{ id: string; text: string } | null>(null);
  const report = useCallback((error: unknown) => setProblem(error), []);
  const view = useView({ limit: PAGE });
  const { sessionError } = useClientSession({ onError: report });
  const turns = useTurns(view, place.client, wakeUrl, report);
  const fault = problem ?? sessionError ?? view.loadError;
  // The end of a failed turn is raised as an error too; there the turn itself says so in the conversation.
  const told = view.runs().some((run) => run.status === 'error' && run.error.message === messageOf(fault));
  const guard = useCallback(
    async (action: Promise<unknown>): Promise<boolean> => {
      try {
        await action;
        setProblem(null);
        return true;
      } catch (error) {
        report(error);
        return false;
      }
    },
    [report],
  );
  useEscape(() => turns.mine && void guard(turns.stopMine()));
  const submit = async (text: string, interrupt: boolean): Promise<boolean> => {
    if (interrupt && turns.mine && !(await guard(turns.stopMine()))) return false;
    const sent = await guard(editing ? turns.edit(editing.id, text) : turns.send(text));
    if (sent) setEditing(null);
    return sent;
  };
  return (
    <div className="page">
      <Header place={place} connection={client.connection} open={turns.open} {...(onForget ? { onForget } : {})} />
      <Conversation view={view} turns={turns} client={place.client} guard={guard} onEdit={setEditing} />
      {fault != null && !told && (
        <div className="notice error" role="alert">
          <span>{describe(fault)}</span>
          <button type="button" className="quiet" onClick={() => setProblem(null)} aria-label="Dismiss">
            ✕
          </button>
        </div>
      )}
      <Composer
        key={editing?.id ?? 'new'}
        initial={editing?.text ?? ''}
        editing={editing !== null}
        busy={turns.mine}
        stopping={turns.stopping}
        onSubmit={submit}
        onStop={() => guard(turns.stopMine())}
        onCancelEdit={() => setEditing(null)}
      />
    </div>
  );
}

/** Escape stops, from anywhere on the page. */
function useEscape(action: () => void): void {
  useEffect(() => {
    const listen = (event: KeyboardEvent): void => {
      if (event.key === 'Escape') action();
    };
    window.addEventListener('keydown', listen);
    return () => window.removeEventListener('keydown', listen);
  });
}
