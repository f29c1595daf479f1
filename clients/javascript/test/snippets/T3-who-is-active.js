export function whoIsActive(transport, log) {
  const activeTurns = transport.tree.getActiveTurnIds();

  for (const [clientId, turnIds] of activeTurns) {
    log(`${clientId} has ${turnIds.size} active turn(s)`);
  }

  return activeTurns.has('assistant');
}
