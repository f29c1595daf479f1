import { useActiveTurns, useClientTransport, useView } from '@ably/ai-transport/react';

export function Chat({ channelName, onSize }) {
  const { transport } = useClientTransport({ channelName });
  const { messages, send } = useView();
  const activeTurns = useActiveTurns();

  const handleSend = async (text) => {
    if (activeTurns.size > 0) {
      await transport.cancel();
      onSize(activeTurns.size);
    }
    await send([{ id: crypto.randomUUID(), role: 'user', parts: [{ type: 'text', text }] }]);
  };

  return <Panel messages={messages} active={activeTurns.size} onSend={handleSend} />;
}

function Panel({ messages, active, onSend }) {
  return (
    <form onSubmit={(event) => { event.preventDefault(); onSend(event.target.elements.text.value); }}>
      <ul>
        {messages.map((message) => (
          <li key={message.id} data-role={message.role}>
            {message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('')}
          </li>
        ))}
      </ul>
      <output>{active}</output>
      <input name="text" />
    </form>
  );
}
