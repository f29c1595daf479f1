"""Accepts connections while the process has descriptors for them.

asyncio's own server accepts until the system refuses, reports that once for each connection of its backlog, and begins
again a second later. Here some descriptors are left for Redis, files and logs, and what waits stays in the backlog.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.background import Background
from gateway.websocket.http import note_plain, unfinished
from gateway.websocket.tls import Certificate
from selfhost_transport.descriptors import descriptor_limit

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 256
"""Connections accepted before the event loop turns to those there are."""
_SPARE: Final = 64
_LOOK_AGAIN_S: Final = 0.2
_WARN_EVERY_S: Final = 60.0
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Handshakes:
    """How TLS begins: with which certificate, how long it may take, how many of one address may be at it (0 = any)."""

    certificate: Certificate
    timeout_s: float
    max_unfinished: int


class Acceptor:
    """Accepts from one listening socket, from `start` until `close`, which closes the socket.

    `close` and `wait_closed` are those of an `asyncio.Server`: uvicorn calls them when it stops.
    """

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        handshakes: Handshakes | None = None,
    ) -> None:
        self._listening = listening
        self._make_protocol = make_protocol
        # None: a plain port.
        self._handshakes = handshakes
        self._tasks = Background("accept")
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._warned_at = -_WARN_EVERY_S
        self._closed = False

    def start(self) -> None:
        """Begin to accept."""
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._accept)

    def close(self) -> None:
        """Stop accepting. Other processes with the same socket still do; without one, clients are refused at once."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listening)
        self._listening.close()
        if self._retry is not None:
            self._retry.cancel()

    async def wait_closed(self) -> None:
        """Wait for connections that are being set up."""
        await self._tasks.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._pause()
                return
            connection.setblocking(False)
            self._tasks.start(self._serve(connection, _host_of(address)))
            # The system gives out the lowest number that is free: all below it are in use.
            if not _has_room(connection.fileno()):
                self._pause()
                return

    async def _serve(self, connection: socket.socket, host: str) -> None:
        try:
            if self._handshakes is None:
                await self._loop.connect_accepted_socket(self._make_protocol, connection)
            else:
                await self._serve_tls(connection, host, self._handshakes)
        except BaseException:
            connection.close()
            raise

    async def _serve_tls(self, connection: socket.socket, host: str, terms: Handshakes) -> None:
        """A client that breaks the handshake off, or never ends it, is its own affair: the connection is closed."""
        try:
            with unfinished(host) as waiting:
                if terms.max_unfinished and waiting > terms.max_unfinished:
                    connection.close()
                    return
                await self._loop.connect_accepted_socket(
                    self._make_protocol,
                    connection,
                    ssl=terms.certificate.context,
                    ssl_handshake_timeout=terms.timeout_s,
                )
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.reason == "HTTP_REQUEST":
                note_plain(host, self._loop.time())
            else:
                logger.debug("tls.handshake_failed address=%s error=%r", host, error)

    def _pause(self) -> None:
        self._loop.remove_reader(self._listening)
        self._retry = self._loop.call_later(_LOOK_AGAIN_S, self._look_again)
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            logger.warning(
                "gateway.descriptors_exhausted limit=%s: new connections wait; raise the limit (ulimit -n, LimitNOFILE), "
                "or start more gateways",
                descriptor_limit(),
            )

    def _look_again(self) -> None:
        if self._closed:
            return
        if _is_roomy():
            self._loop.add_reader(self._listening, self._accept)
        else:
            self._retry = self._loop.call_later(_LOOK_AGAIN_S, self._look_again)


def _host_of(address: object) -> str:
    """Of an address as `accept` gives it; a unix socket has none."""
    return str(address[0]) if isinstance(address, tuple) else ""


def _has_room(descriptor: int) -> bool:
    limit = descriptor_limit()
    return descriptor < limit - min(_SPARE, limit // 8)


def _is_roomy() -> bool:
    try:
        probe = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return False
    os.close(probe)
    return _has_room(probe)
