import { createInterface } from 'node:readline';
import { HttpAgent } from '@ag-ui/client';

const url = `${process.env.GATEWAY ?? 'http://127.0.0.1:8080'}/v1/agui`;
const headers = { authorization: `Basic ${btoa('dev.local:development-secret')}` }; // in production: a token of the user's

class Agent extends HttpAgent {
  connect(input) { // the conversation, and the answer that is being written
    return new HttpAgent({ url: `${this.url}/connect`, headers: this.headers }).run(input);
  }
}

const agent = new Agent({ url, headers, threadId: process.argv[2] ?? crypto.randomUUID() });
const stop = () =>
  fetch(`${url}/stop`, {
    method: 'POST',
    headers: { ...headers, 'content-type': 'application/json' },
    body: JSON.stringify({ threadId: agent.threadId }),
  });

await agent.connectAgent();
for (const { role, content } of agent.messages) console.log(`${role}: ${content}`);
console.log(`thread ${agent.threadId}`);

agent.subscribe({ onTextMessageContentEvent: ({ event }) => void process.stdout.write(event.delta) });
let running = null;
for await (const line of createInterface({ input: process.stdin })) {
  if (line === '') {
    if (running && (await (await stop()).json()).stopped) console.log('\n[stopped for good]');
    continue;
  }
  await running;
  agent.addMessage({ id: crypto.randomUUID(), role: 'user', content: line });
  running = agent.runAgent().then(() => {
    console.log();
    running = null;
  });
}
await running;
