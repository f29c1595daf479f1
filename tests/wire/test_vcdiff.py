"""Deltas: what a decoder makes of them is the target, and what is the same is not sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.wire.vcdiff import make_delta


class Reader:
    """Bytes, read from the front."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def take(self, count: int) -> bytes:
        taken, self.raw = self.raw[:count], self.raw[count:]
        assert len(taken) == count
        return taken

    def integer(self) -> int:
        value = 0
        while True:
            (digit,) = self.take(1)
            value = value << 7 | digit & 0x7F
            if not digit & 0x80:
                return value


def decode(delta: bytes, source: bytes) -> bytes:
    """One window on the whole source, with the two instructions that are used (RFC 3284)."""
    reader = Reader(delta)
    assert reader.take(6) == b"\xd6\xc3\xc4\x00\x00\x01"
    assert (reader.integer(), reader.integer()) == (len(source), 0)
    assert reader.integer() == len(reader.raw)
    size, indicator = reader.integer(), reader.take(1)
    assert indicator == b"\x00"
    lengths = [reader.integer() for _ in range(3)]
    added, instructions, addresses = [Reader(reader.take(length)) for length in lengths]
    assert reader.raw == b""
    target = b""
    while instructions.raw:
        code, length = instructions.take(1), instructions.integer()
        assert code in (b"\x01", b"\x13") and length
        if code == b"\x01":
            target += added.take(length)
        else:
            at = addresses.integer()
            assert at + length <= len(source)
            target += source[at : at + length]
    assert added.raw == addresses.raw == b"" and len(target) == size
    return target


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_a_decoder_gets_the_target(start: bytes, one: bytes, other: bytes, end: bytes) -> None:
    source, target = start + one + end, start + other + end
    assert decode(make_delta(source, target), source) == target


def test_what_is_the_same_is_not_sent() -> None:
    source = b"x" * 20_000 + b"one" + b"y" * 20_000
    target = b"x" * 20_000 + b"two" + b"y" * 20_000
    delta = make_delta(source, target)
    assert b"two" in delta and len(delta) < 40
    assert decode(delta, source) == target
    assert len(make_delta(source, source)) < 30
    # Bytes of the beginning are not counted again at the end.
    assert decode(make_delta(b"aaa", b"aaaaa"), b"aaa") == b"aaaaa"
    assert decode(make_delta(b"aaaaa", b"aaa"), b"aaaaa") == b"aaa"
