"""A generator's socket: a reader that hangs, and goes on."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, serve

from selfhost_transport.loadtest.socket import LoadSocket
from tests.processes import wait_until

SMALL, LARGE, COUNT = 100, 9000, 300


async def test_a_reader_that_hung_is_read_as_fast_as_before() -> None:
    """It gets larger messages than before while it hangs: the kernel then takes the small buffer for all there is."""
    got: list[int] = []
    hangs = asyncio.Event()

    async def send(connection: ServerConnection) -> None:
        for number in range(COUNT):
            await connection.send(b"x" * SMALL)
            await wait_until(lambda number=number: len(got) > number)  # type: ignore[misc]
        await hangs.wait()
        for _ in range(COUNT):
            await connection.send(b"x" * LARGE)
        await connection.wait_closed()

    async with serve(send, "127.0.0.1", 0, compression=None, write_limit=2**22) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        socket = await LoadSocket.open(
            f"ws://127.0.0.1:{port}", lambda payload: got.append(len(payload)), lambda reason: None
        )
        await wait_until(lambda: len(got) == COUNT)
        socket.stop_reading()
        hangs.set()
        await asyncio.sleep(1)  # while nothing is read, the sender's kernel asks for room
        assert len(got) == COUNT
        socket.go_on()
        await wait_until(lambda: len(got) == 2 * COUNT, 15, "all that was sent meanwhile")
        socket.abort()
