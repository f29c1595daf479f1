// The socket.io process that produces tokens: a server without clients, which reaches the others through Redis.
// node publisher.mjs REDIS_URL LOAD; prints "ready", reads the time of the start, ends when all is sent.
import { once } from "node:events";
import { createInterface } from "node:readline";
import { createAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

const load = JSON.parse(process.argv[3]);
// By default the client makes a timer for each command, and gives up what has waited 5 s: tokens would be lost.
const redis = createClient({ url: process.argv[2], commandOptions: { timeout: undefined } });
await redis.connect();
const io = new Server({ adapter: createAdapter(redis, { onlyPlaintext: true, readCount: 1000, maxLen: 200_000 }) });
const text = "x".repeat(140);

// The same schedule as load.py.
const periods = Math.floor((load.warmup_s + load.seconds) * load.rate);
const first = Array.from({ length: load.turns }, (_, turn) =>
  Math.floor((((turn / load.turns) * load.warmup_s) / 2) * load.rate),
);

console.log("ready");
const lines = createInterface({ input: process.stdin });
const [start] = (await once(lines, "line")).map(Number);
let [period, turn] = [0, 0];

// When it is late it still lets the sockets have their turn.
const AT_ONCE = 200;

function sendDue() {
  const now = Date.now() / 1000;
  for (let left = AT_ONCE; period < periods; left--) {
    if (!left) return setImmediate(sendDue);
    const due = start + (period + turn / load.turns) / load.rate;
    if (due > now) return setTimeout(sendDue, 1);
    if (period >= first[turn]) {
      io.to(`s${turn}`).emit("token", { n: period - first[turn], due, text });
    }
    if (++turn === load.turns) [period, turn] = [period + 1, 0];
  }
}
sendDue();
