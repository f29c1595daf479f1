export async function stop(transport) {
  await transport.cancel();
}
