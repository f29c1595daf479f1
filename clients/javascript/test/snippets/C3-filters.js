export async function cancelSome(transport, turnId) {
  // All of my turns
  await transport.cancel();

  // One turn
  await transport.cancel({ turnId });

  // Every turn in the session
  await transport.cancel({ all: true });
}
