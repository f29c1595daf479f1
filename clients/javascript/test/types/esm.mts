// An application as an ES module: that it compiles is the test.
import * as Ably from 'ably';
import type { UIMessage, UIMessageChunk } from 'ai';
import { errorInfoIs, ErrorCode, turnIdOf, createClientTransport as createCore } from 'selfhost-transport';
import { createChatTransport, createClientTransport, UIMessageCodec, type ClientTransport } from 'selfhost-transport/vercel';

const client = new Ably.Realtime({ key: 'app.key:secret', endpoint: 'localhost', clientId: 'me' });
const channel = client.channels.get('chat:1');
const transport: ClientTransport<UIMessage, UIMessageChunk> = createClientTransport({ channel, messages: [] });
const core = createCore<UIMessage, UIMessageChunk>({ channel, codec: UIMessageCodec, api: '/wake', headers: () => ({ a: 'b' }) });
const chat = createChatTransport(transport, { prepareSendMessagesRequest: () => ({ body: {} }) });

export async function main(): Promise<string> {
  await transport.cancel();
  await transport.cancel({ all: true });
  const turn = await transport.view.send([{ role: 'user', content: 'hello' }]);
  for await (const chunk of turn.stream) if (chunk.type === 'text-delta') console.log(chunk.delta);
  const [first]: UIMessage[] = transport.view.getMessages();
  const owners: Map<string, Set<string>> = core.tree.getActiveTurnIds();
  const off: () => void = transport.tree.on('turn', (event) => event.type === 'x-ably-turn-end' && event.reason);
  transport.on('error', (error: Ably.ErrorInfo) => errorInfoIs(error, ErrorCode.TransportSendFailed));
  transport.stageEvents('id', [{ type: 'tool-output-available', toolCallId: '1', output: {} }]);
  if (first) transport.tree.upsert(first.id, first);
  transport.tree.delete('id');
  // @ts-expect-error: a filter has one of four fields.
  await transport.cancel({ turn: 'x' });
  // @ts-expect-error: the channel is needed.
  createClientTransport({});
  off();
  return `${turnIdOf('chat:1', 'id')} ${owners.size} ${chat.streaming}`;
}
