"""The interface to the network: what a connection needs from a socket, and the websocket that provides it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI, WebSocketException

from selfhost_transport.client.connection.tls import describe_tls_failure
from selfhost_transport.errors import ConnectionFailed, InvalidArgument, UntrustedCertificate

# Frames are bounded by the service; this only stops a peer that is no gateway at all.
_MAX_FRAME_BYTES = 64 * 2**20
# Frames written in one go.
_BATCH = 64


class Socket(Protocol):
    """One open socket. One frame per message: text in JSON, bytes in msgpack."""

    def send(self, payload: str | bytes) -> None:
        """Queue a frame for writing, in call order. Never waits; what can no longer be written is dropped."""

    async def receive(self) -> str | bytes:
        """The next frame. Raises ConnectionFailed when the socket is gone."""

    def abort(self) -> None:
        """Make `receive` fail at once."""

    async def close(self) -> None:
        """Write queued frames if that is still possible, then close."""


class Dial(Protocol):
    """Opens a socket to a URL, with further headers of the upgrade."""

    async def __call__(self, url: str, headers: Mapping[str, str]) -> Socket:
        """Raises ConnectionFailed when it cannot be opened, InvalidArgument for a URL that never can."""


class WebSocket:
    """A websocket with a queue in front, so that a publish never waits for the network."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._queue: deque[str | bytes] = deque()
        self._queued = asyncio.Event()
        self._closing = False
        self._writer = asyncio.create_task(self._write())

    def send(self, payload: str | bytes) -> None:
        """Queue a frame."""
        self._queue.append(payload)
        self._queued.set()

    async def receive(self) -> str | bytes:
        """The next frame. Raises ConnectionFailed."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise ConnectionFailed(f"the socket was closed: {error}", code=80003) from error

    def abort(self) -> None:
        """Cut the socket without a closing handshake, which a dead peer would not answer."""
        self._connection.transport.abort()

    async def close(self) -> None:
        """Flush and close; gives up after a second."""
        self._closing = True
        self._queued.set()
        try:
            with contextlib.suppress(TimeoutError, WebSocketException):
                async with asyncio.timeout(1.0):
                    await self._writer
                    await self._connection.close()
        finally:
            self._writer.cancel()
            self._connection.transport.abort()
        await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while not (self._closing and not self._queue):
                await self._queued.wait()
                self._queued.clear()
                # Frames of one moment leave in one chunk: a send and its cancel arrive together (CAN-4).
                together = len(self._queue) > 1
                if together:
                    self._cork(True)
                for _ in range(min(len(self._queue), _BATCH)):
                    await self._connection.send(self._queue.popleft())
                if together:
                    self._cork(False)
                if self._queue:
                    self._queued.set()
                    # Writing does not wait while the system's buffer has room; others want to run, too.
                    await asyncio.sleep(0)

    def _cork(self, on: bool) -> None:
        """Hold back writes, or release them; only where the system supports it."""
        option = getattr(socket, "TCP_CORK", None)
        plain = self._connection.transport.get_extra_info("socket")
        if option is not None and plain is not None:
            with contextlib.suppress(OSError):
                plain.setsockopt(socket.IPPROTO_TCP, option, int(on))


async def dial_websocket(
    url: str, headers: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
) -> Socket:
    """Open a websocket; `tls` counts for wss only. Raises ConnectionFailed, UntrustedCertificate, InvalidArgument."""
    where = urlsplit(url)
    try:
        connection = await connect(
            url,
            additional_headers=headers,
            ssl=(tls or True) if where.scheme == "wss" else None,
            compression=None,
            max_size=_MAX_FRAME_BYTES,
            # Dead peers are noticed by the protocol's own heartbeats (section 4.3).
            ping_interval=None,
            close_timeout=1.0,
            open_timeout=None,
            # A self-hosted gateway is reached directly, never by way of a proxy found in the environment.
            proxy=None,
            user_agent_header=None,
        )
    except InvalidURI as error:
        # Not its text: that quotes the address with what `transport_params` holds.
        raise InvalidArgument(f"{where.netloc} is not a valid address: {error.msg}") from None
    except ssl.SSLError as error:
        kind = UntrustedCertificate if isinstance(error, ssl.SSLCertVerificationError) else ConnectionFailed
        raise kind(f"cannot connect: {describe_tls_failure(error, where.netloc)}") from error
    except (OSError, WebSocketException, EOFError) as error:
        raise ConnectionFailed(
            f"cannot connect to {where.netloc}{where.path.rstrip('/')}: {_reason(error)}"
        ) from error
    return WebSocket(connection)


def _reason(error: Exception) -> str:
    match error:
        case InvalidStatus(response=response):
            return f"it answered with HTTP status {response.status_code}; is the address that of a gateway?"
        case WebSocketException():
            return f"the reply is not that of a gateway ({error}); a gateway behind TLS needs wss:// in the address"
        case OSError(errno=int(number)) if number > 0:
            # Not asyncio's own words for it, "Connect call failed".
            return os.strerror(number)
        case OSError(strerror=str(reason)):
            return reason
    return str(error) or type(error).__name__
