"""Websocket frames of a client, as lean as a load generator needs them (RFC 6455, no extensions)."""

from __future__ import annotations

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


_WHOLE = {_FIN | opcode: opcode for opcode in Opcode if opcode is not Opcode.CONTINUATION}


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
    """Cuts what a server sends into messages. Feed bytes as they come."""

    def __init__(self) -> None:
        self._rest = b""
        # Parts of a message that was sent in several frames.
        self._parts: list[bytes] = []
        self._opcode = Opcode.CONTINUATION

    def feed(self, data: bytes) -> list[tuple[Opcode, bytes]]:
        """Complete messages and control frames, in order. Raises ConnectionFailed for what no server may send."""
        if self._rest:
            data = self._rest + data
        found: list[tuple[Opcode, bytes]] = []
        start, size = 0, len(data)
        while size - start >= 2:
            length, payload = data[start + 1], start + 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                if length > 127:
                    raise ConnectionFailed("the server sent a masked frame")
                payload += wide
                length = int.from_bytes(data[start + 2 : payload], "big") if size >= payload else size
            if size < payload + length:
                break
            self._take(data[start], data[payload : payload + length], found)
            start = payload + length
        self._rest = data[start:]
        return found

    def _take(self, first: int, payload: bytes, found: list[tuple[Opcode, bytes]]) -> None:
        whole = _WHOLE.get(first)
        if whole is not None:
            found.append((whole, payload))
            return
        try:
            opcode = Opcode(first & 0x7F)
        except ValueError:
            raise ConnectionFailed(
                "the server sent a frame with reserved bits or an unknown opcode"
            ) from None
        if opcode is not Opcode.CONTINUATION:
            self._opcode, self._parts = opcode, []
        self._parts.append(payload)
        if first & _FIN:
            found.append((self._opcode, b"".join(self._parts)))
