export function sendBoth(transport, first, second) {
  return Promise.all([transport.view.send(first), transport.view.send(second)]);
}
