export async function cancelOne(transport, specificTurnId) {
  await transport.cancel({ turnId: specificTurnId });
}
