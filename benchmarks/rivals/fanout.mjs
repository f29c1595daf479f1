// One process that sends the same text to every connection, at a rate: Node's usual servers beside native/floor.c.
//
//   node fanout.mjs ws|socket.io FRAME_SIZE ROUNDS_PER_SECOND
//
// Prints its port, waits for a line, sends until the next one, then prints "<rounds> <microseconds of CPU>" of all but
// the first second, in which V8 compiles.
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Server } from "socket.io";
import { WebSocketServer } from "ws";

const [kind, size, rate] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
// A frame of this size has a header of 4 bytes; an event of socket.io is 42["t","…"].
const text = "x".repeat(size - 4 - (kind === "ws" ? 0 : '42["t",""]'.length));
const http = createServer();
let send;
if (kind === "ws") {
  const server = new WebSocketServer({ server: http });
  send = () => {
    for (const client of server.clients) client.send(text);
  };
} else {
  const io = new Server(http, { transports: ["websocket"] });
  send = () => io.emit("t", text);
}
http.listen(0, "127.0.0.1", 4096, () => console.log(http.address().port));

const lines = createInterface({ input: process.stdin });
await once(lines, "line");
const began = performance.now();
let [rounds, roundsBefore, before] = [0, 0, process.cpuUsage()];
const timer = setInterval(() => {
  const due = ((performance.now() - began) / 1000) * rate;
  for (; rounds < due; rounds++) send();
}, 1);
setTimeout(() => ([roundsBefore, before] = [rounds, process.cpuUsage()]), 1000);
await once(lines, "line");
clearInterval(timer);
const spent = process.cpuUsage(before);
console.log(`${rounds - roundsBefore} ${spent.user + spent.system}`);
process.exit(0);
