import { useEffect, useRef, useState } from 'react';
import { useActiveTurns, useView } from '@ably/ai-transport/react';

export function QueuedChat() {
  const { send } = useView();
  const activeTurns = useActiveTurns();
  const queue = useRef([]);
  const [waiting, setWaiting] = useState(0);

  const handleSend = async (text) => {
    if (activeTurns.size > 0) {
      queue.current.push(text);
      setWaiting(queue.current.length);
      return;
    }
    await send({ role: 'user', content: text });
  };

  useEffect(() => {
    if (activeTurns.size === 0 && queue.current.length > 0) {
      const next = queue.current.shift();
      setWaiting(queue.current.length);
      send({ role: 'user', content: next });
    }
  }, [activeTurns.size]);

  return (
    <form onSubmit={(event) => { event.preventDefault(); handleSend(event.target.elements.text.value); }}>
      <input name="text" />
      <output>{waiting}</output>
    </form>
  );
}
