// An application in CommonJS: that it compiles is the test.
import Ably = require('ably');
import core = require('selfhost-transport');
import vercel = require('selfhost-transport/vercel');
import react = require('selfhost-transport/react');
import both = require('selfhost-transport/vercel/react');

const client = new Ably.Realtime({ key: 'app.key:secret' });
const transport = vercel.createClientTransport({ channel: client.channels.get('chat:1') });

export const stop = (): Promise<void> => transport.cancel({ own: true });
export const code: 104005 = core.ErrorCode.TransportSendFailed;
export const hooks = [react.useView, react.useActiveTurns, both.useChatTransport, both.useMessageSync];
