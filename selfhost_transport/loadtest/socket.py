"""A websocket as a plain asyncio protocol: handshake by the websockets package, then bytes as they come."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Self, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from selfhost_transport.errors import ConnectionFailed
from selfhost_transport.loadtest.framing import FrameReader, Opcode, client_frame
from selfhost_transport.loadtest.poller import Poller

OPEN_TIMEOUT_S = 15.0
_HANGING_BUFFER = 4096
_READING_BUFFER = 1 << 20

OnMessage = Callable[[bytes], None]
OnLost = Callable[[str], None]
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


# One for all sockets of the process: what is read is cut into messages before the next socket is. Without it
# asyncio allocates 256 KB for every read, which costs more than the rest of a small frame's way.
_BUFFER = memoryview(bytearray(1 << 18))
_BUFFERS = (_BUFFER,)


class LoadSocket(asyncio.BufferedProtocol):
    """One connection. `on_message` gets each payload; `on_lost` is called once, however the socket ends."""

    def __init__(
        self,
        url: str,
        on_message: OnMessage,
        on_lost: OnLost,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        self._uri = parse_uri(url)
        self._on_lost = on_lost
        self._headers = headers
        self._frames = FrameReader(on_message, self._control)
        self._transport: asyncio.Transport | None = None
        self._handshake: ClientProtocol | None = ClientProtocol(
            self._uri, subprotocols=[Subprotocol(name) for name in subprotocols] or None
        )
        self._answer = b""
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reason = ""
        # Reads instead of the transport once the handshake is over; None with TLS, which only asyncio can read.
        self._poller: Poller | None = None
        self._fd = -1

    @classmethod
    async def open(
        cls,
        url: str,
        on_message: OnMessage,
        on_lost: OnLost,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Self:
        """Connect and upgrade. Raises ConnectionFailed; `on_lost` is not called then."""
        opened = cls(url, on_message, on_lost, subprotocols, headers)
        uri = opened._uri
        context = ssl.create_default_context() if uri.secure else None
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                loop = asyncio.get_running_loop()
                await loop.create_connection(lambda: opened, uri.host, uri.port, ssl=context)
                await opened._opened
        except (OSError, TimeoutError, InvalidHandshake, ConnectionFailed) as error:
            opened.abort()
            raise ConnectionFailed(
                f"cannot connect to {uri.host}:{uri.port}: {error or type(error).__name__}"
            ) from error
        return opened

    def send(self, opcode: Opcode, payload: bytes) -> None:
        """Write one message; nothing happens when the socket is gone."""
        if self._transport is not None:
            self._transport.write(client_frame(opcode, payload))

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._pause()
            self._transport.abort()

    def stop_reading(self) -> None:
        """Read nothing more until `go_on`, as a reader that hangs; the kernel is to buffer little for it."""
        if self._transport is not None:
            self._set_kernel_buffer(_HANGING_BUFFER)
            self._pause()

    def go_on(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing():
            # With the small one, every segment would wait for a timer of the sender.
            self._set_kernel_buffer(_READING_BUFFER)
            if self._poller is None:
                self._transport.resume_reading()
            else:
                self._poller.add(self._fd, self._readable)

    def _pause(self) -> None:
        if self._poller is not None:
            self._poller.remove(self._fd)
        elif self._transport is not None:
            self._transport.pause_reading()

    def _set_kernel_buffer(self, size: int) -> None:
        assert self._transport is not None
        raw = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        # Linux may have cut the window down to the small buffer, and does not widen it by itself when the buffer grows.
        if hasattr(socket, "TCP_WINDOW_CLAMP"):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, size)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert self._handshake is not None
        # Not asserted: other event loops have transports of their own kind.
        self._transport = cast(asyncio.Transport, transport)
        request = self._handshake.connect()
        request.headers.update(self._headers)
        self._handshake.send_request(request)
        self._transport.write(b"".join(self._handshake.data_to_send()))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the event loop."""
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the event loop."""
        data = bytes(_BUFFER[:nbytes])
        if self._handshake is not None:
            data = self._upgrade(data)
        self._take(data)

    def _readable(self) -> None:
        """Called by the poller."""
        try:
            size = os.readv(self._fd, _BUFFERS)
        except BlockingIOError:
            return
        except OSError as error:
            self._reason = str(error)
            self.abort()
            return
        if size:
            self._take(bytes(_BUFFER[:size]))
        elif self._transport is not None:
            self._pause()
            self._transport.close()

    def _take(self, data: bytes) -> None:
        try:
            self._frames.feed(data)
        except ConnectionFailed as error:
            self._reason = str(error)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._pause()
        self._transport = None
        reason = self._reason or str(exc or "the socket was closed")
        if not self._opened.done():
            self._opened.set_exception(ConnectionFailed(reason))
        elif self._handshake is None:
            self._on_lost(reason)

    def _upgrade(self, data: bytes) -> bytes:
        """Feed the answer to the handshake; returns what came after it."""
        self._answer += data
        end = self._answer.find(b"\r\n\r\n") + 4
        handshake = self._handshake
        if end < 4 or handshake is None:
            return b""
        handshake.receive_data(self._answer[:end])
        if handshake.handshake_exc is not None:
            if not self._opened.done():
                self._opened.set_exception(ConnectionFailed(str(handshake.handshake_exc)))
            return b""
        self._handshake = None
        self._read_ourselves()
        if not self._opened.done():
            self._opened.set_result(None)
        return self._answer[end:]

    def _read_ourselves(self) -> None:
        poller = None if self._uri.secure else Poller.running()
        if poller is not None and self._transport is not None:
            self._transport.pause_reading()
            self._poller, self._fd = poller, self._transport.get_extra_info("socket").fileno()
            poller.add(self._fd, self._readable)

    def _control(self, opcode: Opcode, payload: bytes) -> None:
        if opcode is Opcode.PING:
            self.send(Opcode.PONG, payload)
        elif opcode is Opcode.CLOSE:
            self._reason = f"closed by the gateway: {payload[2:].decode(errors='replace') or 'no reason'}"
            self.send(Opcode.CLOSE, payload[:2])
            if self._transport is not None:
                self._transport.close()
