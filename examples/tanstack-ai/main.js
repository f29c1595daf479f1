import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client';

const url = `${GATEWAY}/v1/agui`;
const headers = { authorization: `Basic ${btoa('dev.local:development-secret')}` }; // in production: a token of the user's
const threadId = (location.hash ||= `#chat-${crypto.randomUUID()}`).slice(1); // the session; the address of the page keeps it

const client = new ChatClient({
  threadId,
  persistence: true, // reads the thread, and the answer that is being written
  connection: fetchServerSentEvents(url, { headers }),
  onMessagesChange: show,
});
client.attach();

function show(messages) {
  document.querySelector('main').replaceChildren(
    ...messages.map(({ role, parts }) => {
      const line = document.createElement('p');
      line.className = role;
      line.textContent = `${role}: ${parts.map(({ type, content }) => (type === 'text' ? content : '')).join('')}`;
      return line;
    }),
  );
}

document.querySelector('form').onsubmit = (event) => {
  event.preventDefault();
  client.sendMessage(new FormData(event.target).get('text'));
  event.target.reset();
};

// The first line ends the turn, for every reader; the second only closes this page's connection.
document.querySelector('#stop').onclick = async () => {
  await fetch(`${url}/stop`, {
    method: 'POST',
    headers: { ...headers, 'content-type': 'application/json' },
    body: JSON.stringify({ threadId }),
  });
  client.stop();
};
