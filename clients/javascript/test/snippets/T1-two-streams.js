export async function both(transport, first, second, panel1, panel2) {
  const turn1 = await transport.view.send(first);
  const turn2 = await transport.view.send(second);

  for await (const chunk of turn1.stream) {
    panel1(chunk);
  }
  for await (const chunk of turn2.stream) {
    panel2(chunk);
  }
}
