/** The whole page for one person: the list of sessions, and the one that is open. */
import * as Ably from 'ably';
import { AblyProvider } from 'ably/react';
import { type ReactNode, useCallback, useEffect, useMemo, useState, useSyncExternalStore } from 'react';
import { TransportProvider } from 'selfhost-transport/react';
import { UIMessageCodec } from 'selfhost-transport/vercel';
import { Announcer } from './announcer';
import { Chat } from './chat';
import { ablyOptions, type Credentials, currentSession, randomName, sessionUrl } from './config';
import { Notify } from './notify';
import { Person } from './person';
import { Push } from './push';
import { SessionWatch } from './session-watch';
import { Sessions } from './sessions';
import { Sidebar } from './sidebar';

interface Props {
  credentials: Credentials;
  /** The name to be known by, where the credentials leave that open. */
  name: string;
  onSignIn: () => void;
  onSignOut: (() => void) | undefined;
}

/** The other sessions are listened to once the open one is there. */
const WATCH_AFTER_MS = 1_000;

export function App({ credentials, name, onSignIn, onSignOut }: Props): ReactNode {
  const [client] = useState(() => new Ably.Realtime(ablyOptions(name, credentials)));
  const me = useMe(client, name);
  const sessions = useMemo(() => new Sessions(me), [me]);
  const push = useMemo(() => new Push(client, name), [client, name]);
  const watch = useMemo(() => new SessionWatch(client, sessions), [client, sessions]);
  const { session, ready, open } = useSession(watch);
  useWatched(client, sessions, watch, session);
  const [menu, setMenu] = useState(false);
  const [running, setRunning] = useState(false);
  const go = (next: string): void => {
    setMenu(false);
    if (next !== session) open(next);
  };
  const escape = useCallback((): boolean => {
    setMenu(false);
    return menu;
  }, [menu]);
  return (
    <AblyProvider client={client}>
      <a className="skip" href="#conversation">
        Go to the conversation
      </a>
      <div className="page">
        <Sidebar
          sessions={sessions}
          current={session}
          running={watch.running}
          currentRuns={running}
          open={menu}
          onOpen={go}
          onNew={() => go(randomName('chat'))}
          onClose={() => setMenu(false)}
        >
          <Notify push={push} />
          <Person me={me} mayChoose={credentials.kind === 'key'} onSignIn={onSignIn} onSignOut={onSignOut && (() => void push.turnOff().finally(onSignOut))} />
        </Sidebar>
        {ready ? (
          <TransportProvider key={session} channelName={session} codec={UIMessageCodec}>
            <Chat session={session} client={client} me={me} sessions={sessions} onMenu={() => setMenu(true)} onEscape={escape} onRunning={setRunning} />
          </TransportProvider>
        ) : (
          <div className="chat" />
        )}
      </div>
      <Announcer />
    </AblyProvider>
  );
}

/** The name that the gateway knows this person by. */
function useMe(client: Ably.Realtime, name: string): string {
  const [me, setMe] = useState(name);
  useEffect(() => {
    const learn = (): void => {
      const { clientId } = client.auth;
      if (clientId && clientId !== '*') setMe(clientId);
    };
    client.connection.on('connected', learn);
    return () => client.connection.off('connected', learn);
  }, [client]);
  return me;
}

/** The session of the address bar. It is `ready` once nothing else holds its channel. */
function useSession(watch: SessionWatch): { session: string; ready: boolean; open: (session: string) => void } {
  const [session, setSession] = useState(currentSession);
  const [free, setFree] = useState(session);
  useEffect(() => {
    const moved = (): void => setSession(currentSession());
    window.addEventListener('popstate', moved);
    return () => window.removeEventListener('popstate', moved);
  }, []);
  useEffect(() => {
    let current = true;
    void watch.letGo(session).then(() => current && setFree(session));
    return () => void (current = false);
  }, [watch, session]);
  const open = (next: string): void => {
    history.pushState(null, '', sessionUrl(next));
    setSession(next);
  };
  return { session, ready: free === session, open };
}

function useWatched(client: Ably.Realtime, sessions: Sessions, watch: SessionWatch, session: string): void {
  const list = useSyncExternalStore(sessions.subscribe, sessions.get);
  useEffect(() => {
    const look = setTimeout(() => {
      void client.connection.whenState('connected').then(() => watch.watchAllBut(session));
    }, WATCH_AFTER_MS);
    return () => clearTimeout(look);
  }, [client, watch, session, list]);
}
