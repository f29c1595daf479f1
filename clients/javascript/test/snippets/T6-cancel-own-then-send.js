export async function replace(transport, message) {
  await transport.cancel({ own: true });
  return transport.view.send(message);
}
