"""Processes that produce tokens for nchan and mosquitto: `python -m benchmarks.rivals.publisher KIND PORT LOAD`.

They print "ready", read the time of the start, and send every token when it is due.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict

from benchmarks.rivals import mqtt
from benchmarks.rivals.load import RivalLoad, token

_TICK_S = 0.001
# Kept open, requests one behind the other without waiting for answers; a turn keeps its connection, and its order.
_HTTP_CONNECTIONS = 16


class _Drain(asyncio.BufferedProtocol):
    """Reads answers and forgets them."""

    _buffer = memoryview(bytearray(1 << 16))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Nothing is done with them."""


class Nchan:
    """Publishes by HTTP POST, as nchan is published to."""

    connections = _HTTP_CONNECTIONS
    greeting = b""

    def packet(self, turn: int, payload: bytes) -> bytes:
        """The request that publishes a token."""
        return b"POST /pub/s%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
            turn, len(payload), payload,
        )  # fmt: skip


class Mosquitto:
    """Publishes over one MQTT connection, QoS 0."""

    connections = 1
    greeting = mqtt.connect("publisher")

    def packet(self, turn: int, payload: bytes) -> bytes:
        """The packet that publishes a token."""
        return mqtt.publish(f"s{turn}", payload)


async def main(kind: str, port: int, load: RivalLoad) -> None:
    """Connect, wait for the start, send."""
    publisher = Nchan() if kind == "nchan" else Mosquitto()
    loop = asyncio.get_running_loop()
    transports = []
    for _ in range(publisher.connections):
        transport, _protocol = await loop.create_connection(_Drain, "127.0.0.1", port)
        transport.write(publisher.greeting)
        transports.append(transport)
    print("ready", flush=True)
    start = float(await asyncio.to_thread(sys.stdin.readline))
    schedule = load.schedule(start)
    following = next(schedule, None)
    while following is not None:
        now = time.time()
        leaving: defaultdict[int, list[bytes]] = defaultdict(list)
        while following is not None and following[0] <= now:
            due, turn, number = following
            leaving[turn % publisher.connections].append(publisher.packet(turn, token(number, due)))
            following = next(schedule, None)
        for connection, packets in leaving.items():
            transports[connection].write(b"".join(packets))
        await asyncio.sleep(_TICK_S)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), RivalLoad.parse(sys.argv[3])))
