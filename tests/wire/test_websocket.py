"""Websocket headers, read back by another implementation of RFC 6455."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from selfhost_transport.wire.websocket import ws_frame_header


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70_000])
@pytest.mark.parametrize("text", [True, False])
def test_the_header_is_that_of_one_whole_message(length: int, text: bool) -> None:
    payload = b"x" * length
    reader = StreamReader()
    reader.feed_data(ws_frame_header(text, length) + payload)
    parsing = Frame.parse(reader.read_exact, mask=False)
    with pytest.raises(StopIteration) as done:
        next(parsing)
    frame = done.value.value
    assert frame.fin
    assert frame.opcode == (Opcode.TEXT if text else Opcode.BINARY)
    assert frame.data == payload
    assert reader.buffer == b""
