// The page of the browser's suite: the pages' components, for the session, person and key that the address names.
import { Realtime } from 'ably';
import { AblyProvider } from 'ably/react';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import { TransportProvider, useActiveTurns, useClientTransport, useView } from 'selfhost-transport/react';
import { UIMessageCodec } from 'selfhost-transport/vercel';
import { ChatTransportProvider } from 'selfhost-transport/vercel/react';
import { Chat as Interrupting } from '../.build/snippets/I2-interrupt.jsx';
import { Chat as UseChat } from '../.build/snippets/V3-getting-started.jsx';

const { session, person, key, port, show } = Object.fromEntries(new URLSearchParams(location.search));
const client = new Realtime({
  key, clientId: person, endpoint: '127.0.0.1', port: Number(port), tls: false, disableConnectivityCheck: true, disconnectedRetryTimeout: 200,
});

/** What the suite looks at besides the text. */
function Facts() {
  const { transport } = useClientTransport();
  const active = useActiveTurns();
  const { hasOlder } = useView({ limit: 30 });
  window.transport = transport;
  return <aside data-mine={active.get(person)?.size ?? 0} data-agent={active.get('assistant')?.size ?? 0} data-older={hasOlder} />;
}

window.sizes = [];
const shown = {
  interrupting: (
    <TransportProvider channelName={session} codec={UIMessageCodec}>
      <Facts />
      <Interrupting channelName={session} onSize={(size) => window.sizes.push(size)} />
    </TransportProvider>
  ),
  usechat: (
    <ChatTransportProvider channelName={session}>
      <Facts />
      <UseChat channelName={session} />
    </ChatTransportProvider>
  ),
};

createRoot(document.querySelector('main')).render(
  <StrictMode><AblyProvider client={client}>{shown[show]}</AblyProvider></StrictMode>,
);
