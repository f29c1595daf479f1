export async function cancelFirst(transport, first, second) {
  const turn1 = await transport.view.send(first);
  const turn2 = await transport.view.send(second);

  await turn1.cancel();

  for await (const chunk of turn2.stream) {
    if (chunk.type === 'finish') return [turn1, turn2];
  }
}
