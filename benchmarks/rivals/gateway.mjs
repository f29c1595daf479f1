// The socket.io server that viewers connect to. node gateway.mjs REDIS_URL; prints its port.
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

// By default the client makes a timer for each command, and gives up what has waited 5 s: tokens would be lost.
const redis = createClient({ url: process.argv[2], commandOptions: { timeout: undefined } });
await redis.connect();
const http = createServer();
const io = new Server(http, {
  adapter: createAdapter(redis, { onlyPlaintext: true, readCount: 1000, maxLen: 200_000 }),
  transports: ["websocket"],
});
io.on("connection", (socket) => socket.join(socket.handshake.query.session));
http.listen(0, "127.0.0.1", 4096, () => console.log(http.address().port));
