"""Websocket frames, against the websockets package as the other side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.frames import Opcode as Op
from websockets.protocol import OPEN, SERVER, Protocol

from selfhost_transport.errors import ConnectionFailed
from selfhost_transport.loadtest.framing import FrameReader, Opcode, client_frame
from selfhost_transport.wire.websocket import ws_frame_header

payloads = st.one_of(st.binary(max_size=300), st.integers(0, 70_000).map(lambda size: b"x" * size))


def no_control(opcode: Opcode, payload: bytes) -> None:
    raise AssertionError(f"{opcode} was not sent")


@given(payload=payloads)
def test_a_server_reads_what_the_client_writes(payload: bytes) -> None:
    server = Protocol(SERVER, state=OPEN)
    server.receive_data(client_frame(Opcode.BINARY, payload))
    (event,) = server.events_received()
    assert isinstance(event, Frame)
    assert (event.opcode, event.data) == (Op.BINARY, payload)


@given(sent=st.lists(payloads, max_size=6), cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_the_client_reads_what_a_server_writes_however_it_is_cut(sent: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(ws_frame_header(False, len(payload)) + payload for payload in sent)
    places = sorted({cut % (len(stream) + 1) for cut in cuts})
    found: list[bytes] = []
    reader = FrameReader(found.append, no_control)
    for start, end in zip([0, *places], [*places, len(stream)], strict=True):
        reader.feed(stream[start:end])
    assert found == sent


def test_a_message_in_several_frames_with_a_ping_in_between() -> None:
    frames = (
        Frame(Op.TEXT, b"one ", fin=False),
        Frame(Op.PING, b"are you there"),
        Frame(Op.CONT, b"two ", fin=False),
        Frame(Op.CONT, b"three"),
    )
    stream = b"".join(frame.serialize(mask=False) for frame in frames)
    found: list[object] = []
    FrameReader(found.append, lambda opcode, payload: found.append((opcode, payload))).feed(stream)
    assert found == [(Opcode.PING, b"are you there"), b"one two three"]


@pytest.mark.parametrize("stream", [b"\x81\x85abcdhello", b"\x8f\x00", b"\xc1\x01x", b"\x80\x01x"])
def test_what_no_server_may_send(stream: bytes) -> None:
    messages: list[bytes] = []
    with pytest.raises(ConnectionFailed):
        FrameReader(messages.append, no_control).feed(stream)
    assert messages == []
