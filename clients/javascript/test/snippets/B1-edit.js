export async function edit(transport, id) {
  await transport.view.edit(id, [
    { role: 'user', content: 'What is the capital of Spain?' },
    { role: 'user', content: 'And of Portugal?' },
  ]);
}
