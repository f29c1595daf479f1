import { useView } from '@ably/ai-transport/react';

export function History({ onRender }) {
  const { messages, hasOlder, loading, loadOlder } = useView({ limit: 30 });
  onRender({ count: messages.length, hasOlder, loading });

  return (
    <div>
      {hasOlder && <button onClick={loadOlder}>Older messages</button>}
      <output>{messages.length}</output>
    </div>
  );
}
