// An agent as its author ran it on the cloud, but for options.mjs: woken by a POST, answers over the session.
import { createServer } from 'node:http';
import { Invocation } from '@ably/ai-transport';
import { createAgentSession } from '@ably/ai-transport/vercel';
import * as Ably from 'ably';
import { createUIMessageStream } from 'ai';
import { options } from './options.mjs';

const client = new Ably.Realtime({ ...options, clientId: 'my-agent', logLevel: 0 });

const answer = () =>
  createUIMessageStream({
    execute({ writer }) {
      writer.write({ type: 'start' });
      writer.write({ type: 'text-start', id: '1' });
      for (const delta of ['my ', 'own ', 'answer']) writer.write({ type: 'text-delta', id: '1', delta });
      writer.write({ type: 'text-end', id: '1' });
      writer.write({ type: 'finish' });
    },
  });

async function run(body) {
  const invocation = Invocation.fromJSON(JSON.parse(body));
  const session = createAgentSession({ client, channelName: invocation.sessionName });
  await session.connect();
  const turn = session.createRun(invocation);
  while (turn.view.hasOlder()) await turn.view.loadOlder();
  await turn.start();
  await turn.end(await turn.pipe(answer()));
}

const server = createServer(async (request, response) => {
  let body = '';
  for await (const part of request) body += part;
  run(body).then(
    () => response.end('{}'),
    (error) => {
      console.log(error.message);
      response.writeHead(500).end();
    },
  );
});
server.listen(0, '127.0.0.1', () => console.log(`ready http://127.0.0.1:${server.address().port}`));
