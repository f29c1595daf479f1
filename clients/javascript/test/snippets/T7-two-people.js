export async function together(aliceTransport, bobTransport, fromAlice, fromBob) {
  return Promise.all([aliceTransport.view.send(fromAlice), bobTransport.view.send(fromBob)]);
}
