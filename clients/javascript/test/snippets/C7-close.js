export async function leave(transport) {
  await transport.close({ cancel: { own: true } });
}
