"""Deltas between two payloads in the VCDIFF format (RFC 3284), as the SDKs' decoders read them (section 14.4).

What lies between the common beginning and the common end is sent, the rest is copied. That is cheap to find and fits
what consecutive messages of a channel look like: the same document with a value changed.
"""

from __future__ import annotations

from typing import Final

# Magic number with version 0; no secondary compression, no code table of its own (section 4.1 of the RFC).
_HEADER: Final = b"\xd6\xc3\xc4\x00\x00"
_SOURCE: Final = b"\x01"
_PLAIN: Final = b"\x00"
# Of the default code table (RFC 3284, section 5.6): a size follows; the address is counted from the beginning of the source.
_ADD, _COPY = b"\x01", b"\x13"


def make_delta(source: bytes, target: bytes) -> bytes:
    """What a decoder needs to make `target` of `source`."""
    start = _common_prefix(source, target)
    end = _common_prefix(source[start:][::-1], target[start:][::-1])
    added = target[start : len(target) - end]
    instructions, addresses = b"", b""
    if start:
        instructions += _COPY + _integer(start)
        addresses += _integer(0)
    if added:
        instructions += _ADD + _integer(len(added))
    if end:
        instructions += _COPY + _integer(end)
        addresses += _integer(len(source) - end)
    lengths = b"".join(_integer(len(part)) for part in (added, instructions, addresses))
    window = _integer(len(target)) + _PLAIN + lengths + added + instructions + addresses
    return _HEADER + _SOURCE + _integer(len(source)) + _integer(0) + _integer(len(window)) + window


def _common_prefix(one: bytes, other: bytes) -> int:
    """How many bytes are the same at the beginning."""
    same, limit = 0, min(len(one), len(other))
    while same < limit:
        middle = (same + limit + 1) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            limit = middle - 1
    return same


def _integer(value: int) -> bytes:
    """A number in digits of seven bits, the highest first; all but the last are marked (section 2 of the RFC)."""
    digits = [value & 0x7F]
    while value := value >> 7:
        digits.append(value & 0x7F | 0x80)
    return bytes(reversed(digits))
