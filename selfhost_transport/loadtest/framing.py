"""Websocket frames of a client, as lean as a load generator needs them (RFC 6455, no extensions)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from selfhost_transport.errors import ConnectionFailed

_FIN = 0x80
_MASKED = 0x80
# The key may be any four bytes. Zeros leave the payload as it is, which spares the generator the masking; what
# masking is for, confusing caches on the way, does not concern a load test.
_NO_MASK = b"\0\0\0\0"


class Opcode(IntEnum):
    """What a frame is."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_WHOLE = (_FIN | Opcode.TEXT.value, _FIN | Opcode.BINARY.value)
_SHORT, _WIDE = 126, 127


def client_frame(opcode: Opcode, payload: bytes) -> bytes:
    """One complete masked frame."""
    length = len(payload)
    first = bytes((_FIN | opcode,))
    if length < 126:
        return first + bytes((_MASKED | length,)) + _NO_MASK + payload
    if length < 1 << 16:
        return first + bytes((_MASKED | 126,)) + length.to_bytes(2, "big") + _NO_MASK + payload
    return first + bytes((_MASKED | 127,)) + length.to_bytes(8, "big") + _NO_MASK + payload


class FrameReader:
    """Cuts what a server sends into messages. Feed bytes as they come.

    `on_message` gets the payload of each message; `on_control` gets what PING, PONG and CLOSE carry, in order.
    """

    def __init__(
        self, on_message: Callable[[bytes], None], on_control: Callable[[Opcode, bytes], None]
    ) -> None:
        self._on_message = on_message
        self._on_control = on_control
        self._rest = b""
        # Parts of a message that was sent in several frames; None when none has begun.
        self._parts: list[bytes] | None = None

    def feed(self, data: bytes) -> None:
        """Take what came. Raises ConnectionFailed for what no server may send."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        on_message = self._on_message
        start, size = 0, len(data)
        while size - start >= 2:
            length, payload = data[start + 1], start + 2
            if length == _SHORT:
                payload += 2
                length = data[start + 2] << 8 | data[start + 3] if size >= payload else size
            elif length == _WIDE:
                payload += 8
                length = int.from_bytes(data[start + 2 : payload], "big") if size >= payload else size
            elif length > _WIDE:
                raise ConnectionFailed("the server sent a masked frame")
            end = payload + length
            if size < end:
                break
            first = data[start]
            if first in _WHOLE:
                on_message(data[payload:end])
            else:
                self._take(first, data[payload:end])
            start = end
        self._rest = data[start:]

    def _take(self, first: int, payload: bytes) -> None:
        """A control frame, or one of several of a message."""
        try:
            opcode = Opcode(first & 0x7F)
        except ValueError:
            raise ConnectionFailed(
                "the server sent a frame with reserved bits or an unknown opcode"
            ) from None
        if opcode > Opcode.BINARY:
            self._on_control(opcode, payload)
            return
        if (self._parts is None) == (opcode is Opcode.CONTINUATION):
            raise ConnectionFailed("the server sent a fragment out of order")
        self._parts = [*(self._parts or ()), payload]
        if first & _FIN:
            whole, self._parts = b"".join(self._parts), None
            self._on_message(whole)
