import { useClientTransport, useCreateView } from '@ably/ai-transport/react';

export function SplitPane({ channelName, onPanes }) {
  const { transport } = useClientTransport({ channelName });
  const left = useCreateView({ transport, limit: 50 });
  const right = useCreateView({ transport, limit: 50 });
  onPanes({ left, right });

  const pane = ({ messages }) => messages.map((message) => message.parts.map((part) => part.text ?? '').join('')).join('|');
  return (
    <div>
      <pre id="left">{pane(left)}</pre>
      <pre id="right">{pane(right)}</pre>
    </div>
  );
}
