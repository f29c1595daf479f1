// ably-js over TLS to a gateway with a private certificate authority, which NODE_EXTRA_CA_CERTS names.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closed, connect, KEY, options, unique } from './support.mjs';
import * as Ably from 'ably';

const TLS = { tls: true, tlsPort: Number(process.env.PORTS), port: Number(process.env.PORTS) };

for (const transports of [['web_socket'], ['comet']]) {
  test(`what is published arrives: ${transports}`, async (t) => {
    const client = connect(t, 'ann', { ...TLS, transports });
    const channel = client.channels.get(unique());
    const heard = new Promise((resolve) => {
      channel.subscribe(resolve);
    });
    await channel.attach();
    await channel.publish('greeting', 'x'.repeat(30_000));
    assert.equal((await heard).data.length, 30_000);
    // With TLS the SDK sends the key itself.
    const rest = new Ably.Rest({ ...options(TLS), key: KEY });
    assert.equal((await rest.channels.get(channel.name).history()).items.length, 1);
    await closed(client);
  });
}
