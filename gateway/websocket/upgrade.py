"""Where a websocket's frames come from and go to: its transport, or ASGI.

Under `RawWebSocket`, which is uvicorn's protocol with a way out, a connection is taken out of the server's hands once
its handshake is done, and lives on as a `RawSocket`. Under any other server `QueuedOutlet` sends through ASGI.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Protocol

from starlette.types import Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets import http11

from gateway.background import Background
from gateway.websocket.http import MAX_HEAD_BYTES, UpgradingHttp, refusal
from gateway.websocket.protocol import Listener, RawSocket
from gateway.websocket.write_batch import WriteBatch

# The library's own limit is less than what a token in an address or header may have.
http11.MAX_LINE_LENGTH = max(http11.MAX_LINE_LENGTH, MAX_HEAD_BYTES)

__all__ = [
    "QueuedOutlet",
    "RawWebSocket",
    "SocketOutlet",
    "StartableOutlet",
    "UpgradingHttp",
    "raw_websocket",
]

RAW: Final = "selfhost_transport.raw_websocket"
"""Extension of the ASGI scope that holds the protocol of a websocket."""


class SocketOutlet(Protocol):
    """Writes websocket frames; `congested` while more than the limit waits to be sent."""

    congested: bool

    @property
    def key_prefix(self) -> str:
        """What stands before the keys of the connection."""

    def write(self, frame: bytes) -> None: ...  # noqa: D102

    def ping(self) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102

    def abort(self) -> None: ...  # noqa: D102


class StartableOutlet(SocketOutlet, Protocol):
    """A socket that is given its listener: see `RawSocket.start`."""

    def start(self, listener: Listener, tasks: Background, limit: int, write_batch: WriteBatch) -> None: ...  # noqa: D102


class RawWebSocket(WebSocketsSansIOProtocol):
    """uvicorn's websocket protocol for the handshake; an application may take the connection over after it.

    It accepts no extension, whatever the server's settings: a `RawSocket` does not decompress frames.
    """

    _early = b""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn.available_extensions = []

    async def run_asgi(self) -> None:
        """Run the application with this protocol in its scope."""
        self.scope["extensions"][RAW] = {"protocol": self}
        await super().run_asgi()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client. What it sends without waiting for the handshake is kept for who takes over."""
        if self.handshake_initiated and not self.handshake_complete:
            self._early += data
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # The library would say nothing, and the client wait.
            self.handshake_initiated = self.handshake_complete = self.close_sent = True
            self.transport.write(refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
            self.transport.close()

    def hold(self) -> None:
        """Read nothing from the client until the connection is taken over."""
        self.transport.pause_reading()

    def hand_over(self) -> RawSocket:
        """Give the connection away, after the handshake; the application's coroutine may end before it does."""
        self.stop_keepalive()
        del self.scope["extensions"][RAW]
        self.connections.discard(self)
        socket = RawSocket(self.transport, self.connections, self.config.ws_max_size, self._early)
        self.transport.set_protocol(socket)
        self.transport = _GivenAway()
        # It points back at what it belongs to, like the parser of `UpgradingHttp`.
        self.conn.__dict__.pop("parser", None)
        return socket


class _GivenAway(asyncio.Transport):
    """What uvicorn's protocol closes when the application has ended."""

    def close(self) -> None:
        """Nothing: the connection belongs to another."""


def raw_websocket(scope: Scope) -> RawWebSocket | None:
    """The protocol of a websocket, where the server is uvicorn with `RawWebSocket`."""
    extension: Mapping[str, Any] = scope.get("extensions", {}).get(RAW, {})
    return extension.get("protocol")


class QueuedOutlet:
    """Sends frames through ASGI, for servers that give no access to the transport."""

    key_prefix = ""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._listener: Listener | None = None
        self._limit = 0
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.congested = False
        self.closed = False

    def start(self, listener: Listener, tasks: Background, limit: int, write_batch: WriteBatch) -> None:
        """Tell the listener when more than `limit` bytes wait, and when no longer. It is fed by the caller."""
        self._listener, self._limit = listener, limit

    def write(self, frame: bytes) -> None:
        """Queue one complete websocket frame."""
        if self.closed:
            return
        self._waiting.append(frame)
        self._size += len(frame)
        if self._listener is not None and self._size > self._limit and not self.congested:
            self.congested = True
            self._listener.congested()
        self._send_soon()

    def ping(self) -> None:
        """The server's own affair."""

    def close(self) -> None:
        """Close behind everything that was written."""
        self._closing = True
        self._send_soon()

    def abort(self) -> None:
        """Forget what waits."""
        self.closed = True
        self._waiting.clear()

    async def flush(self) -> None:
        """Wait until everything queued was handed to the server."""
        if self._task is not None:
            await self._task

    def _send_soon(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._waiting:
                frame = self._waiting.popleft()
                payload = frame[header_length(frame) :]
                kind = {"text": payload.decode()} if frame[0] == 0x81 else {"bytes": payload}
                await self._send({"type": "websocket.send", **kind})
                self._size -= len(frame)
            if self._closing and not self.closed:
                self.closed = True
                await self._send({"type": "websocket.close", "code": 1000})
        except Exception:
            # The client is gone.
            self.abort()
            return
        if self.congested:
            self.congested = False
            if self._listener is not None:
                self._listener.drained()


def header_length(frame: bytes) -> int:
    """Bytes before the payload of a complete frame from a server."""
    return {126: 4, 127: 10}.get(frame[1], 2)
