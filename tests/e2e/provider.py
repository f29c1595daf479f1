"""A model provider over HTTP that notices when its reader hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import time
from types import TracebackType
from typing import Self


class Provider:
    """Streams `0 1 2 …` in chunks; after `hang_at` tokens it says nothing more and keeps the connection."""

    def __init__(self, hang_at: int) -> None:
        self._hang_at = hang_at
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        # When the reader hung up, by the monotonic clock.
        self.disconnected: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError):
            await self._stream(reader, writer)
        if not self.disconnected.done():
            self.disconnected.set_result(time.monotonic())
        writer.close()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(self._hang_at):
            token = f"{number} ".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(token), token))
            await writer.drain()
            await asyncio.sleep(0.01)
        # End of file is how a hang-up shows on a connection that nothing is written to.
        await reader.read()
