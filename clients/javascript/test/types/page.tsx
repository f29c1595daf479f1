// A page: that it compiles is the test.
import { useChat } from '@ai-sdk/react';
import type { UIMessage } from 'ai';
import { TransportProvider, useActiveTurns, useClientTransport, useCreateView, useTree, useView } from 'selfhost-transport/react';
import { UIMessageCodec } from 'selfhost-transport/vercel';
import { ChatTransportProvider, useChatTransport, useMessageSync } from 'selfhost-transport/vercel/react';

export function Page({ channelName }: { channelName: string }) {
  return (
    <ChatTransportProvider channelName={channelName}>
      <TransportProvider channelName={`${channelName}:side`} codec={UIMessageCodec} messages={[]}>
        <Chat channelName={channelName} />
      </TransportProvider>
    </ChatTransportProvider>
  );
}

function Chat({ channelName }: { channelName: string }) {
  const { transport, transportError } = useClientTransport<UIMessage>({ channelName });
  const { messages, nodes, hasOlder, loadOlder, send } = useView<UIMessage>({ transport, limit: 30 });
  const { select } = useCreateView({ transport });
  const { getSiblings } = useTree({ transport });
  const active = useActiveTurns();
  const { chatTransport } = useChatTransport({ channelName });
  const { setMessages, stop } = useChat({ id: channelName, transport: chatTransport });
  useMessageSync({ setMessages, channelName });
  if (transportError) return <p>{transportError.message}</p>;
  return (
    <ul>
      {hasOlder && <button onClick={loadOlder}>older</button>}
      {messages.map((message) => <li key={message.id} onClick={() => select(message.id, 0)}>{getSiblings(message.id).length}</li>)}
      <button onClick={() => void send({ role: 'user', content: 'hello' })}>{nodes.length} {active.size}</button>
      <button onClick={stop}>stop</button>
    </ul>
  );
}
