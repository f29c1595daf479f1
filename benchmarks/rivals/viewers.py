"""The viewers of a comparison, one connection for each turn: `python -m benchmarks.rivals.viewers WIRE URL LOAD`.

They stand on the sockets, the frame reader and the histograms of the load generator, and check the number of
every token, so that they weigh as much as it does. Print "ready" once all have subscribed, read the time of the
start, print what they measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import msgspec

from benchmarks.rivals import mqtt
from benchmarks.rivals.load import RivalLoad, Token
from selfhost_transport.gc_tuning import tune_gc
from selfhost_transport.loadtest.framing import Opcode
from selfhost_transport.loadtest.histogram import Histogram
from selfhost_transport.loadtest.socket import LoadSocket

_OPENING_AT_ONCE = 32
_OPEN_TIMEOUT_S = 30.0

_decode = msgspec.json.Decoder(Token).decode
_decode_event = msgspec.json.Decoder(tuple[str, Token]).decode


class Measured(msgspec.Struct):
    """What the viewers saw inside the window; latencies in ms from when a token was due."""

    tokens: int
    out_of_order: int
    p50: float
    p99: float


class Recorder:
    """Latencies of the tokens that arrive inside the window."""

    def __init__(self) -> None:
        self.active = False
        self.tokens = 0
        self.out_of_order = 0
        self._latencies = Histogram()

    def arrived(self, latency: float) -> None:
        """One token."""
        if self.active:
            self.tokens += 1
            self._latencies.record(latency)

    def measured(self) -> Measured:
        """Everything until now."""
        summary = self._latencies.summary()
        return Measured(self.tokens, self.out_of_order, summary.p50, summary.p99)


class Viewer:
    """One connection, subscribed to one turn."""

    subprotocols: tuple[str, ...] = ()

    def __init__(self, turn: int, recorder: Recorder) -> None:
        self.turn = turn
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._socket: LoadSocket | None = None
        self._recorder = recorder
        self._expected = 0

    async def open(self, url: str) -> None:
        """Connect and subscribe. Raises ConnectionFailed, TimeoutError."""
        async with asyncio.timeout(_OPEN_TIMEOUT_S):
            self._socket = await LoadSocket.open(
                url.replace("TURN", str(self.turn)), self.on_message, self._on_lost, self.subprotocols
            )
            self.opened()
            await self.subscribed

    def opened(self) -> None:
        """The websocket is open; for nchan that is all."""
        self.subscribed.set_result(None)

    def on_message(self, payload: bytes) -> None:
        """A websocket message; for nchan it is the token."""
        self.token(_decode(payload))

    def send(self, opcode: Opcode, payload: bytes) -> None:
        """Send a websocket message."""
        if self._socket is not None:
            self._socket.send(opcode, payload)

    def token(self, token: Token) -> None:
        """Check and count."""
        if token.n != self._expected:
            self._recorder.out_of_order += 1
        self._expected = token.n + 1
        self._recorder.arrived(time.time() - token.due)

    def _on_lost(self, reason: str) -> None:
        raise SystemExit(f"viewer {self.turn} lost its connection: {reason}")


class SocketIoViewer(Viewer):
    """socket.io 4 over a websocket: packets of engine.io, of which `42` carries an event."""

    def opened(self) -> None:
        """Connect to the main namespace."""
        self.send(Opcode.TEXT, b"40")

    def on_message(self, payload: bytes) -> None:
        """A packet."""
        if payload.startswith(b"42"):
            self.token(_decode_event(payload[2:])[1])
        elif payload.startswith(b"40"):
            self.subscribed.set_result(None)
        elif payload == b"2":
            self.send(Opcode.TEXT, b"3")


class MqttViewer(Viewer):
    """MQTT in binary websocket messages."""

    subprotocols = ("mqtt",)

    def opened(self) -> None:
        """Introduce ourselves."""
        self._packets = mqtt.PacketReader()
        self.send(Opcode.BINARY, mqtt.connect(f"viewer-{self.turn}"))

    def on_message(self, payload: bytes) -> None:
        """Some packets."""
        for kind, content in self._packets.feed(payload):
            if kind == mqtt.PUBLISH:
                self.token(_decode(content))
            elif kind == mqtt.CONNACK:
                self.send(Opcode.BINARY, mqtt.subscribe(f"s{self.turn}"))
            elif kind == mqtt.SUBACK:
                self.subscribed.set_result(None)


WIRES: dict[str, Callable[[int, Recorder], Viewer]] = {
    "nchan": Viewer,
    "socket.io": SocketIoViewer,
    "mosquitto": MqttViewer,
}


async def main(wire: str, url: str, load: RivalLoad) -> None:
    """Subscribe all, watch for the length of the window, report."""
    recorder = Recorder()
    limit = asyncio.Semaphore(_OPENING_AT_ONCE)

    async def open_one(turn: int) -> None:
        async with limit:
            await WIRES[wire](turn, recorder).open(url)

    async with asyncio.TaskGroup() as group:
        for turn in range(load.turns):
            group.create_task(open_one(turn))
    tune_gc()
    print("ready", flush=True)
    begin = float(await asyncio.to_thread(sys.stdin.readline)) + load.warmup_s
    await asyncio.sleep(begin - time.time())
    recorder.active = True
    await asyncio.sleep(begin + load.seconds - time.time())
    recorder.active = False
    print(msgspec.json.encode(recorder.measured()).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], RivalLoad.parse(sys.argv[3])))
