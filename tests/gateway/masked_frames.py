"""Frames as a client's websocket sends them."""

from __future__ import annotations

from websockets.frames import Frame, Opcode

MASK = b"abcd"


def sent(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A frame as clients send it."""
    return Frame(Opcode(opcode), payload, fin).serialize(mask=True)
