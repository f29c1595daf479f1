"""The websocket frame header, so that a frame for many connections is encoded once (RFC 6455)."""

from __future__ import annotations

import struct

_FIN_TEXT = 0x81
_FIN_BINARY = 0x82
_MAX_SHORT = 125
_MAX_16_BIT = 0xFFFF

_SHORT_TEXT = tuple(bytes((_FIN_TEXT, length)) for length in range(_MAX_SHORT + 1))
_SHORT_BINARY = tuple(bytes((_FIN_BINARY, length)) for length in range(_MAX_SHORT + 1))
_pack_16 = struct.Struct("!BBH").pack
_pack_64 = struct.Struct("!BBQ").pack


def ws_frame_header(opcode_text: bool, length: int) -> bytes:
    """Header of one complete, unmasked, uncompressed server-to-client message of `length` payload bytes."""
    if length <= _MAX_SHORT:
        return (_SHORT_TEXT if opcode_text else _SHORT_BINARY)[length]
    opcode = _FIN_TEXT if opcode_text else _FIN_BINARY
    if length <= _MAX_16_BIT:
        return _pack_16(opcode, 126, length)
    return _pack_64(opcode, 127, length)


def ws_payload(frame: bytes) -> bytes:
    """What a frame with such a header carries."""
    length = frame[1]
    return frame[2 if length <= _MAX_SHORT else 4 if length == 126 else 10 :]
