export async function regenerate(transport) {
  const last = transport.view.getMessages().at(-1);
  await transport.view.regenerate(last.id);
}
