import { useChat } from '@ai-sdk/react';
import { DefaultChatTransport } from 'ai';
import { createRoot } from 'react-dom/client';

const api = `${GATEWAY}/api/chat`;
const headers = { authorization: `Basic ${btoa('dev.local:development-secret')}` }; // in production: a token of the user's
const id = (location.hash ||= `#chat-${crypto.randomUUID()}`).slice(1); // the session; the address of the page keeps it
const call = (what, method = 'GET') => fetch(`${api}/${encodeURIComponent(id)}/${what}`, { method, headers });

function Chat({ messages: stored }) {
  const chat = useChat({ id, messages: stored, resume: true, transport: new DefaultChatTransport({ api, headers }) });
  const running = chat.status === 'submitted' || chat.status === 'streaming';
  const send = (event) => {
    event.preventDefault();
    chat.sendMessage({ text: new FormData(event.target).get('text') });
    event.target.reset();
  };
  // The first line ends the turn, for every reader; the second only closes this page's connection.
  const stop = async () => {
    await call('stop', 'POST');
    chat.stop();
  };
  return (
    <>
      {chat.messages.map(({ id, role, parts }) => (
        <p key={id} className={role}>
          <b>{role}: </b>
          {parts.map((part, index) => part.type === 'text' && <span key={index}>{part.text}</span>)}
        </p>
      ))}
      {chat.error && <p role="alert">{chat.error.message}</p>}
      <form onSubmit={send}>
        <input name="text" aria-label="Message" autoFocus required />
        <button>Send</button>
        <button type="button" onClick={stop} disabled={!running}>Stop</button>
      </form>
    </>
  );
}

const messages = await (await call('messages')).json();
createRoot(document.getElementById('root')).render(<Chat messages={messages} />);
