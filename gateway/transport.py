"""The way out of a websocket: complete, pre-encoded frames written straight to the socket's transport.

`RawWebSocket` is uvicorn's protocol with that door open; under any other server `QueuedOutlet` sends through ASGI.
A frame for many connections is encoded once, and no queue or task lies between it and a socket that keeps up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

RAW: Final = "selfhost_transport.raw_websocket"
"""Extension of the ASGI scope that holds the protocol of a websocket."""


class SocketOutlet(Protocol):
    """Writes websocket frames; `congested` while more than the limit waits to be sent."""

    congested: bool

    def write(self, frame: bytes) -> None: ...  # noqa: D102

    def abort(self) -> None: ...  # noqa: D102


class RawWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's websocket protocol that can be written to and that reports congestion."""

    raw_outlet: RawOutlet | None = None

    async def run_asgi(self) -> None:
        """Run the application with this protocol in its scope."""
        self.scope["extensions"][RAW] = {"protocol": self}
        await super().run_asgi()

    def pause_writing(self) -> None:
        """More waits to be sent than the limit allows."""
        super().pause_writing()
        if self.raw_outlet is not None:
            self.raw_outlet.filled()

    def resume_writing(self) -> None:
        """What waited has been sent."""
        super().resume_writing()
        if self.raw_outlet is not None:
            self.raw_outlet.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing can be written any more."""
        if self.raw_outlet is not None:
            self.raw_outlet.closed = True
        super().connection_lost(exc)


class RawOutlet:
    """Writes to a `RawWebSocket`. The callbacks tell when more than `limit` bytes wait, and when no longer."""

    __slots__ = ("_on_congested", "_on_drained", "_transport", "closed", "congested")

    def __init__(
        self,
        protocol: RawWebSocket,
        limit: int,
        on_congested: Callable[[], None],
        on_drained: Callable[[], None],
    ) -> None:
        self._transport = protocol.transport
        self._on_congested = on_congested
        self._on_drained = on_drained
        self.congested = False
        self.closed = False
        self._transport.set_write_buffer_limits(high=limit)
        protocol.raw_outlet = self

    def write(self, frame: bytes) -> None:
        """Send one complete websocket frame, or forget it when the socket is gone."""
        if not self.closed:
            self._transport.write(frame)

    def abort(self) -> None:
        """Drop the connection with everything that waits."""
        self._transport.abort()

    def filled(self) -> None:
        """The buffer has grown above the limit."""
        self.congested = True
        self._on_congested()

    def drained(self) -> None:
        """The buffer has emptied below the limit."""
        self.congested = False
        self._on_drained()


class QueuedOutlet:
    """Sends frames through ASGI, for servers that give no access to the transport."""

    def __init__(
        self, send: Any, limit: int, on_congested: Callable[[], None], on_drained: Callable[[], None]
    ) -> None:
        self._send = send
        self._limit = limit
        self._on_congested = on_congested
        self._on_drained = on_drained
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self.congested = False
        self.closed = False

    def write(self, frame: bytes) -> None:
        """Queue one complete websocket frame."""
        if self.closed:
            return
        self._waiting.append(frame)
        self._size += len(frame)
        if self._size > self._limit and not self.congested:
            self.congested = True
            self._on_congested()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())

    def abort(self) -> None:
        """Forget what waits."""
        self.closed = True
        self._waiting.clear()

    async def flush(self) -> None:
        """Wait until everything queued was handed to the server."""
        if self._task is not None:
            await self._task

    async def _drain(self) -> None:
        while self._waiting:
            frame = self._waiting.popleft()
            payload = frame[_header_length(frame) :]
            kind = {"text": payload.decode()} if frame[0] == 0x81 else {"bytes": payload}
            try:
                await self._send({"type": "websocket.send", **kind})
            except Exception:
                self.abort()
                return
            self._size -= len(frame)
        if self.congested:
            self.congested = False
            self._on_drained()


def _header_length(frame: bytes) -> int:
    return {126: 4, 127: 10}.get(frame[1], 2)
