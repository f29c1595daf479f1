export async function interrupt(transport, msg) {
  await transport.cancel();
  await transport.view.send([msg]);
}
