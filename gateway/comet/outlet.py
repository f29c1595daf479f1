"""The way out of a connection over HTTP: frames wait until the client's next request asks for them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.background import Background
from gateway.websocket.protocol import Listener
from gateway.websocket.upgrade import header_length
from gateway.websocket.write_batch import WriteBatch

UNASKED_TIMEOUT_S: Final = 15.0
"""How long a client may take to ask again before it counts as gone."""
ABORTED_TIMEOUT_S: Final = 2.0
"""The same after it aborted a request: clients do so when they close, and say that with another request."""
STREAM_BYTES: Final = 1024 * 1024
"""Bytes after which a stream ends and the client asks again: browsers keep the whole response."""


class CometOutlet:
    """Frames of one connection that wait for a request, as JSON. `key_prefix` stands before the connection's keys.

    `on_end` is called once when the client is gone, behind the listener.
    """

    def __init__(self, key_prefix: str) -> None:
        self.key_prefix = key_prefix
        self.on_end: Callable[[], None] = lambda: None
        self.congested = False
        self.closed = False
        self._listener: Listener | None = None
        self._limit = 0
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._closing = False
        # The request that asks at the moment.
        self._reader: object | None = None
        self._something = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def start(self, listener: Listener, tasks: Background, limit: int, write_batch: WriteBatch) -> None:
        """Tell the listener when more than `limit` bytes wait, and when no longer. It is fed by requests."""
        self._listener, self._limit = listener, limit
        self._expect(UNASKED_TIMEOUT_S)

    def write(self, frame: bytes) -> None:
        """Queue one complete websocket frame of text."""
        if self.closed:
            return
        payload = frame[header_length(frame) :]
        self._waiting.append(payload)
        self._size += len(payload)
        self._something.set()
        if self._listener is not None and self._size > self._limit and not self.congested:
            self.congested = True
            self._listener.congested()

    def ping(self) -> None:
        """The client shows that it lives by asking."""

    def close(self) -> None:
        """End once everything that was written has been asked for."""
        self._closing = True
        self._something.set()
        if self._reader is None:
            self._expect(ABORTED_TIMEOUT_S)

    def abort(self) -> None:
        """Forget what waits; the client's next request learns that there is no connection."""
        if self.closed:
            return
        self.closed = True
        self._waiting.clear()
        self._something.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            listener, self._listener = self._listener, None
            listener.ended()
        self.on_end()

    # Requests that ask

    def begin(self) -> object:
        """A request asks from here on, in place of an earlier one. Returns the token that names it."""
        self._reader = reader = object()
        self._something.set()
        if self._timer is not None:
            self._timer.cancel()
        return reader

    async def ready(self, reader: object) -> bool:
        """Returns once something waits. False: this request gets nothing any more."""
        while self._reader is reader and not self.closed:
            if self._waiting:
                return True
            if self._closing:
                return False
            self._something.clear()
            await self._something.wait()
        return False

    def take(self) -> bytes:
        """Everything that waits, as one JSON array."""
        frames, self._waiting = self._waiting, deque()
        self._size = 0
        if self.congested:
            self.congested = False
            if self._listener is not None:
                self._listener.drained()
        return b"[" + b",".join(frames) + b"]"

    def end(self, reader: object, *, aborted: bool) -> None:
        """A request has been answered; or its client is gone, with what was being sent to it."""
        if self._reader is not reader or self.closed:
            return
        self._reader = None
        if self._closing and not self._waiting:
            self.abort()
        else:
            self._expect(ABORTED_TIMEOUT_S if aborted else UNASKED_TIMEOUT_S)

    def _expect(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)


class CometResponse(Response):
    """What waits for the client, as soon as something does; as a `stream`, lines of JSON arrays for as long as it reads."""

    def __init__(self, outlet: CometOutlet, *, stream: bool, headers: dict[str, str]) -> None:
        # Proxies must neither buffer nor cache a stream.
        fixed = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **headers}
        super().__init__(headers=fixed, media_type="application/json")
        del self.headers["content-length"]
        self._outlet = outlet
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        reader = self._outlet.begin()
        gone = asyncio.ensure_future(_disconnect(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send_body(reader, gone, send)
            if not gone.done():
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._outlet.end(reader, aborted=gone.done())
            gone.cancel()

    async def _send_body(self, reader: object, gone: asyncio.Future[None], send: Send) -> None:
        sent = 0
        while sent < STREAM_BYTES:
            ready = asyncio.ensure_future(self._outlet.ready(reader))
            both: set[asyncio.Future[Any]] = {ready, gone}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() or not ready.result():
                ready.cancel()
                if not self._stream and not gone.done():
                    await send({"type": "http.response.body", "body": b"[]", "more_body": True})
                return
            body = self._outlet.take() + (b"\n" if self._stream else b"")
            sent += len(body)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            if not self._stream:
                return


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
