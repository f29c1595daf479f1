export async function sendAndStop(transport, message) {
  const turn = await transport.view.send(message);
  await turn.cancel();
  return turn;
}
