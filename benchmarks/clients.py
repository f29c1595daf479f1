"""Clients for the benchmarks of connections: the load generator's, without its measurements."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from selfhost_transport.loadtest.client import Client
from selfhost_transport.loadtest.incoming import Incoming
from selfhost_transport.loadtest.plan import Target
from selfhost_transport.loadtest.recorder import Recorder
from selfhost_transport.wire.codec import Format

ARRIVAL_TIMEOUT_S = 30.0
_AT_ONCE = 32


class Listener:
    """Waits for what arrives on a channel. `last_serial`: resume from there."""

    def __init__(self, last_serial: str = "") -> None:
        self.last_serial = last_serial
        self._arrived = asyncio.Event()

    async def arrived(self) -> None:
        """Returns once a message has come. Raises TimeoutError."""
        async with asyncio.timeout(ARRIVAL_TIMEOUT_S):
            await self._arrived.wait()

    def attached(self, serial: str | None, *, resumed: bool) -> None:
        """Called by the client."""

    def deliver(self, frame: Incoming) -> None:
        """Called by the client."""
        self._arrived.set()


def client(target: Target, number: int, channel: str, listener: Listener) -> Client:
    """A client in one of both formats, in turn."""
    fmt = (Format.JSON, Format.MSGPACK)[number % 2]
    return Client(target, number, channel, fmt, f"user-{number}", listener, Recorder())


async def start_all(clients: Sequence[Client]) -> None:
    """Connect and attach all, some at once."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def start(one: Client) -> None:
        async with limit:
            await one.start()

    async with asyncio.TaskGroup() as group:
        for one in clients:
            group.create_task(start(one))


async def close_all(clients: Sequence[Client]) -> None:
    """Close all."""
    await asyncio.gather(*(one.close() for one in clients))
