// `useChat` without React: node chat.mjs CHANNEL TEXT API. Prints the answer, or how the chat failed.
import { createChatTransport, createClientSession } from '@ably/ai-transport/vercel';
import * as Ably from 'ably';
import { AbstractChat } from 'ai';
import { options } from './options.mjs';

class State {
  status = 'ready';
  error = undefined;
  messages = [];
  pushMessage = (message) => { this.messages = [...this.messages, message]; };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (index, message) => { this.messages = this.messages.with(index, message); };
  snapshot = (value) => structuredClone(value);
}
class Chat extends AbstractChat {
  constructor(init) { super({ ...init, state: new State() }); }
}

const [channelName, text, api] = process.argv.slice(2);
const client = new Ably.Realtime({ ...options, clientId: 'user-1', logLevel: 0 });
const session = createClientSession({ client, channelName });
await session.connect();
const chat = new Chat({ id: channelName, transport: createChatTransport(session, api ? { api } : undefined) });
await chat.sendMessage({ text });
const said = chat.messages.at(-1).parts.map((part) => part.text ?? '').join('');
console.log(chat.error ? `failed: ${chat.error.message} | ${chat.error.cause?.message ?? ''}` : said);
process.exit(0);
