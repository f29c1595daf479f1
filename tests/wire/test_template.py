"""The spliced append frame is the frame that encode_frame makes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.errors import BadRequest
from selfhost_transport.wire.actions import Action, MessageAction
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, decode_frame, encode_frame
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.template import AppendTemplate
from tests.wire.strategies import encodings, extras, maybe, texts, times

headers = st.fixed_dictionaries(
    {
        "name": maybe(texts),
        "id": maybe(texts),
        "serial": maybe(texts),
        "timestamp": maybe(times),
        "client_id": maybe(texts),
        "connection_id": maybe(texts),
        "extras": maybe(extras),
        "encoding": encodings,
    }
)


@given(
    headers,
    texts,
    texts | st.binary(max_size=300),
    st.text(min_size=1, max_size=9),
    times,
    maybe(texts),
    texts,
)
def test_template_makes_the_same_frame(
    header: dict[str, Any],
    channel: str,
    data: str | bytes,
    serial: str,
    at: int,
    by: str | None,
    position: str,
) -> None:
    appended = Message(**header, data=data, action=MessageAction.APPEND, version=Version(serial, at, by))
    frame = Frame(Action.MESSAGE, channel=channel, channel_serial=position, messages=[appended])
    for fmt in Format:
        # What the message holds at the time makes no difference to a delta.
        template = AppendTemplate(
            channel, Message(**header, data="earlier", action=MessageAction.CREATE), fmt
        )
        spliced = template.frame(position, data, serial, at, version_client_id=by)
        assert decode_frame(spliced, fmt) == decode_frame(encode_frame(frame, fmt), fmt) == frame


@pytest.mark.parametrize("fmt", Format)
def test_a_template_outlives_a_refused_text(fmt: Format) -> None:
    template = AppendTemplate("c", Message(name="n"), fmt)
    before = template.frame("p", "ok", "v", 1)
    with pytest.raises(BadRequest) as caught:
        template.frame("p", "\ud800", "v", 1)
    assert caught.value.info.code == 40013
    assert template.frame("p", "ok", "v", 1) == before


def test_an_append_frame_on_the_wire() -> None:
    template = AppendTemplate("c", Message(name="n", serial="s", extras={"a": "b"}), Format.JSON)
    assert template.frame("p", "x\n", "v", 5) == (
        b'{"action":15,"channel":"c","messages":[{"name":"n","serial":"s","extras":{"a":"b"},"action":5,'
        b'"data":"x\\n","version":{"serial":"v","timestamp":5}}],"channelSerial":"p"}'
    )
