"""What a client sends over a websocket, cut into messages (RFC 6455)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from gateway.websocket.frame_reader import Inbound, Incoming, Unreadable
from tests.gateway.masked_frames import MASK, sent

LIMIT = 1000


def read(inbound: Inbound, data: bytes, step: int) -> list[Incoming]:
    """Everything that a stream holds, fed `step` bytes at a time."""
    chunks = [data[at : at + step] for at in range(0, len(data), step)]
    return [incoming for chunk in chunks for incoming in inbound.receive(chunk)]


@given(st.lists(st.one_of(st.text(max_size=200), st.binary(max_size=200)), max_size=8), st.integers(1, 700))
def test_messages_arrive_whole_however_the_bytes_are_cut(messages: list[str | bytes], step: int) -> None:
    stream = b""
    for message in messages:
        opcode, payload = (1, message.encode()) if isinstance(message, str) else (2, message)
        half = len(payload) // 2
        stream += sent(opcode, payload[:half], fin=False) + sent(9, b"?") + sent(0, payload[half:])
    found = read(Inbound(LIMIT), stream, step)
    assert [one for one in found if isinstance(one, str | bytes)] == messages
    assert sum(isinstance(one, Frame) and one.opcode is Opcode.PING for one in found) == len(messages)


def test_a_close_frame_is_read_with_its_code() -> None:
    assert list(Inbound(LIMIT).receive(sent(8, struct.pack("!H", 1001) + b"bye"))) == [Close(1001, "bye")]
    assert list(Inbound(LIMIT).receive(sent(8, b""))) == [Close(1005, "")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sent(2, b"x" * (LIMIT + 1)), 1009),
        (sent(1, b"x" * 600, fin=False) + sent(0, b"x" * 600), 1009),
        (sent(1, b"\xff\xfe"), 1007),
        (Frame(Opcode.TEXT, b"unmasked").serialize(mask=False), 1002),
        (sent(0, b"no beginning"), 1002),
        (sent(1, b"a", fin=False) + sent(1, b"b"), 1002),
        (bytes((0x80 | 0x40 | 1, 0x80)) + MASK, 1002),
        (bytes((0x80 | 3, 0x80)) + MASK, 1002),
        (bytes((9, 0x80)) + MASK, 1002),
        (sent(8, b"\x03"), 1002),
        (sent(8, struct.pack("!H", 1005)), 1002),
    ],
    # The masks are random: by number, so that every process has the same tests.
    ids=range(11),
)
def test_what_no_client_may_send_is_refused_behind_what_came_before(data: bytes, code: int) -> None:
    found: list[Incoming] = []
    with pytest.raises(Unreadable) as refused:
        for incoming in Inbound(LIMIT).receive(sent(1, b"before") + data):
            found.append(incoming)  # noqa: PERF402
    assert (found[0], refused.value.code) == ("before", code)
