"""The HTTP side of a connection: how long it may stay silent, and how much its first words may be."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

from uvicorn import Config
from uvicorn.protocols.http.auto import AutoHTTPProtocol

logger = logging.getLogger(__name__)

KEEP_ALIVE_S: Final = 120
"""How long an idle HTTP connection stays open: longer than clients and proxies keep theirs (Node 5 s, ALB 60 s, nginx
75 s, Go 90 s), so that it is they who close it, and no request meets a connection that is being closed."""
ANNOUNCED_BEFORE_S: Final = 5
"""Clients get a time shorter by this: their last request may be in flight."""


MAX_HEAD_BYTES: Final = 65_536
"""Bytes of a request line and its headers; tokens of some KB stand in either."""
_LINGER_S: Final = 1.0
_TLS_HANDSHAKE: Final = b"\x16\x03"
_NOTED_EVERY_S: Final = 60.0
# When a client of the other kind was last logged; a client that is set up wrongly comes again and again.
_tls_noted_at: list[float] = []
_plain_noted_at: list[float] = []
# By address, of this process.
_headless: Counter[str] = Counter()


def refusal(status: HTTPStatus) -> bytes:
    """A complete answer, without a body."""
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
    )


@contextmanager
def unfinished(address: str) -> Iterator[int]:
    """Count a connection of an address that has not come as far as a request; yields how many there are."""
    _headless[address] += 1
    try:
        yield _headless[address]
    finally:
        _forget(address)


def _forget(address: str) -> None:
    _headless[address] -= 1
    if _headless[address] <= 0:
        del _headless[address]


def _note_tls(address: str, now_s: float) -> None:
    if _is_due(_tls_noted_at, now_s):
        logger.warning(
            "http.tls_on_plain_port address=%s: this port speaks no TLS; set `tls: false` in the client (ws:// and http:// in "
            "an address), give the gateway a certificate (--tls-cert), or put a proxy that ends TLS before it",
            address,
        )


def note_plain(address: str, now_s: float) -> None:
    """Log that a client speaks plain HTTP to a port with a certificate."""
    if _is_due(_plain_noted_at, now_s):
        logger.warning(
            "http.plain_on_tls_port address=%s: this port speaks TLS only; set `tls: true` in the client (wss:// and https:// "
            "in an address)",
            address,
        )


def _is_due(noted_at: list[float], now_s: float) -> bool:
    if noted_at and now_s < noted_at[-1] + _NOTED_EVERY_S:
        return False
    noted_at[:] = [now_s]
    return True


class UpgradingHttp(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's HTTP protocol, which keeps idle connections open for long, and says so.

    A request's head, its first line and headers, has a limited size and time, and one address a limited number of
    connections whose head has not come.

    After an upgrade it lets go of its parser, which points back at it. Without the circle what an upgrade leaves behind
    is freed at once, not by some garbage collection.
    """

    head_timeout_s: float = 10.0
    """How long a head may take, from the connection or from its first byte."""
    max_headless: int = 512
    """Connections of one address that wait for a head; one more is closed."""

    def __init__(self, config: Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self.timeout_keep_alive = max(config.timeout_keep_alive, KEEP_ALIVE_S)
        announced = (b"keep-alive", f"timeout={self.timeout_keep_alive - ANNOUNCED_BEFORE_S}".encode())
        # The lists of the whole server: the first one lasts, the other is made from it every second.
        for headers in (config.encoded_headers, self.server_state.default_headers):
            if not any(name.lower() == b"keep-alive" for name, _ in headers):
                headers.append(announced)

        self._head_size = 0
        self._head_timer: asyncio.TimerHandle | None = None
        # Nothing more is read: it was refused.
        self._read_closed = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has connected; it has to say what it wants."""
        super().connection_made(transport)
        self._await_head()
        if self.max_headless and _headless[self._address] > self.max_headless:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        if self._read_closed:
            return
        if not self._head_size and self._head_timer is not None and data.startswith(_TLS_HANDSHAKE):
            _note_tls(self._address, self.loop.time())
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        super().data_received(data)
        if self._head_timer is None:
            return
        self._head_size += len(data)
        if self._head_size > MAX_HEAD_BYTES and not self.transport.is_closing():
            in_url = not self.headers
            self._refuse(
                HTTPStatus.REQUEST_URI_TOO_LONG if in_url else HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            )

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """A head is there."""
        self._head_came()
        super().on_headers_complete()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_size = 0
            self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)
            _headless[self._address] += 1

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            _forget(self._address)

    def _head_is_late(self) -> None:
        if self._head_size:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)
        else:
            # It has not even begun: there is nothing to answer.
            self.transport.abort()

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer, and close only after the client could read it: what it still sends is dropped."""
        self._head_came()
        self._read_closed = True
        self.transport.write(refusal(status))
        self.loop.call_later(_LINGER_S, self.transport.close)

    def handle_websocket_upgrade(self, *event: Any) -> None:
        """Pass the connection on to the websocket protocol."""
        super().handle_websocket_upgrade(*event)
        self.__dict__.pop("parser", None)
