export async function answer(transport, pendingNode, pendingPart, output) {
  const turn = await transport.view.update(pendingNode.id, [
    { type: 'tool-output-available', toolCallId: pendingPart.toolCallId, output },
  ]);
  return turn;
}
