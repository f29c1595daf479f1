// A reverse proxy before the gateway, on a port of its own: it can be gone and return, put the gateway below a path, or pass no websockets.
import http from 'node:http';
import { ORIGIN } from './page.mjs';

const gateway = new URL(ORIGIN);

/** `prefix`: the path that the gateway is under, such as `/deep/chat`. `websockets`: false lets none through. */
export async function proxy(t, { prefix = '', websockets = true } = {}) {
  const open = new Set();
  const paths = [];
  let server;
  let port = 0;
  const inner = (url) => (url.startsWith(prefix) ? url.slice(prefix.length) || '/' : undefined);
  const options = ({ method, headers }, path) => ({ host: gateway.hostname, port: gateway.port, method, path, headers });

  function pass(request, response) {
    paths.push(request.url.split('?')[0]);
    const path = inner(request.url);
    if (path === undefined) return response.writeHead(404).end();
    const passed = http.request(options(request, path), (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    passed.on('error', () => response.destroy());
    response.on('close', () => passed.destroy());
    request.pipe(passed);
  }

  function upgrade(request, socket) {
    const path = inner(request.url);
    if (!websockets || path === undefined) return socket.destroy();
    const passed = http.request(options(request, path));
    passed.on('error', () => socket.destroy());
    passed.on('upgrade', (answer, other, head) => {
      const lines = Object.entries(answer.headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`);
      // The first frame may have come with the answer.
      socket.write(head);
      other.pipe(socket).pipe(other);
      for (const end of [other, socket]) end.on('error', () => {});
      socket.on('close', () => other.destroy());
      other.on('close', () => socket.destroy());
    });
    passed.end();
  }

  async function start() {
    server = http.createServer(pass).on('upgrade', upgrade);
    server.on('connection', (socket) => {
      open.add(socket);
      socket.on('close', () => open.delete(socket));
    });
    await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
    port = server.address().port;
  }

  /** As a gateway whose process is gone: connections are cut, new ones refused. */
  async function stop() {
    const closed = new Promise((resolve) => server.close(resolve));
    for (const socket of open) socket.destroy();
    await closed;
  }

  await start();
  t.after(stop);
  return { url: `http://127.0.0.1:${port}${prefix}`, paths, start, stop };
}
