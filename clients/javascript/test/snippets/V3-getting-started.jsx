import { useChat } from '@ai-sdk/react';
import { useState } from 'react';
import { useActiveTurns, useChatTransport, useClientTransport, useMessageSync } from '@ably/ai-transport/vercel/react';

export function Chat({ channelName }) {
  const [input, setInput] = useState('');
  const { chatTransport } = useChatTransport({ channelName });
  const { transport } = useClientTransport({ channelName });
  const { messages, setMessages, sendMessage, status, stop } = useChat({ id: channelName, transport: chatTransport });
  useMessageSync({ setMessages, channelName });
  const activeTurns = useActiveTurns({ transport });
  const isStreaming = activeTurns.size > 0;

  const onSubmit = (event) => {
    event.preventDefault();
    sendMessage({ text: event.target.elements.text.value });
    setInput('');
  };

  return (
    <form onSubmit={onSubmit} data-status={status}>
      {messages.map((message) => (
        <li key={message.id} data-role={message.role}>
          {message.parts.map((part) => (part.type === 'text' ? part.text : '')).join('')}
        </li>
      ))}
      <input name="text" defaultValue={input} />
      {isStreaming ? <button type="button" onClick={stop}>Stop</button> : <button type="submit">Send</button>}
    </form>
  );
}
