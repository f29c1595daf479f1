import { useActiveTurns, useClientTransport, useView } from '@ably/ai-transport/react';

export function ReplacingChat({ channelName }) {
  const { transport } = useClientTransport({ channelName });
  const { send } = useView({ transport });
  const activeTurns = useActiveTurns({ transport });

  const handleSend = async (text) => {
    if (activeTurns.size > 0) {
      await transport.cancel();
    }
    await send({ role: 'user', content: text });
  };

  return (
    <form onSubmit={(event) => { event.preventDefault(); handleSend(event.target.elements.text.value); }}>
      <input name="text" />
      <output>{activeTurns.size}</output>
    </form>
  );
}
