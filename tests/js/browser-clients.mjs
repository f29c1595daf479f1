// What the pages of origins.test.mjs use, as one script.
export { HttpAgent } from '@ag-ui/client';
export { DefaultChatTransport } from 'ai';
export { default as OpenAI } from 'openai7';
