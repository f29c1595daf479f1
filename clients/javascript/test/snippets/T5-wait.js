export async function waits(transport, turnId) {
  await transport.waitForTurn({ turnId });
  await transport.waitForTurn({ own: true });
  await transport.waitForTurn({ all: true });
}
