import { useView } from '@ably/ai-transport/react';

export function Alongside() {
  const { messages, send } = useView();

  const handleSend = async (text) => {
    await send([{ id: crypto.randomUUID(), role: 'user', parts: [{ type: 'text', text }] }]);
  };

  return (
    <div>
      <button id="one" onClick={() => handleSend('script: tokens=60 rate=100')}>one</button>
      <button id="two" onClick={() => handleSend('script: tokens=30 rate=100')}>two</button>
      <output>{messages.length}</output>
    </div>
  );
}
