// One run of TanStack AI's client against URL: prints each length of its text as it grows, then `{"text":…}`.
import { ChatClient, fetchServerSentEvents } from '@tanstack/ai-client';
import { as } from './front-ends.mjs';

const { URL: url, SESSION: threadId, TEXT } = process.env;
const said = (messages) => messages.filter(({ role }) => role === 'assistant').flatMap(({ parts }) => parts).map(({ type, content }) => (type === 'text' ? content : '')).join('');
const onMessagesChange = (messages) => console.log(JSON.stringify({ length: said(messages).length }));
const client = new ChatClient({ threadId, connection: fetchServerSentEvents(url, { headers: as('user-1') }), onMessagesChange });
await client.sendMessage(TEXT);
console.log(JSON.stringify({ text: said(client.getMessages()), error: String(client.getError?.() ?? '') }));
process.exit(0);
