"""What the real SDKs sent or accepted is understood, and encoded again to the same content: each shape, in each format."""

from __future__ import annotations

from typing import Any

import pytest

from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codec import Format, unpack
from selfhost_transport.wire.frame import FrameError, decode_frame, encode_frame
from tests.wire.recordings import Recorded, distinct, frames

CLIENT_FRAMES = frames("c2s")
SERVER_FRAMES = frames("s2c")
CLIENT_SHAPES, SERVER_SHAPES = distinct(CLIENT_FRAMES), distinct(SERVER_FRAMES)


def test_the_recordings_are_there() -> None:
    assert len(CLIENT_FRAMES) > 200
    assert {frame.fmt for frame in CLIENT_SHAPES} == set(Format)
    assert len(CLIENT_SHAPES) + len(SERVER_SHAPES) > 100
    assert {Action.MESSAGE, Action.PRESENCE, Action.ATTACH, Action.AUTH} <= {
        frame.wire["action"] for frame in CLIENT_FRAMES
    }


@pytest.mark.parametrize("recorded", CLIENT_SHAPES, ids=lambda frame: frame.scenario)
def test_client_frame_is_decoded_and_encoded_equivalently(recorded: Recorded) -> None:
    frame = decode_frame(recorded.raw, recorded.fmt)
    assert _content(unpack(encode_frame(frame, recorded.fmt), recorded.fmt)) == _content(recorded.wire)


@pytest.mark.parametrize("recorded", CLIENT_SHAPES + SERVER_SHAPES, ids=lambda frame: frame.scenario)
@pytest.mark.parametrize("fmt", Format)
def test_frame_survives_either_format(recorded: Recorded, fmt: Format) -> None:
    if _has_unknown_message_action(recorded.wire):
        return
    frame = decode_frame(recorded.raw, recorded.fmt)
    assert decode_frame(encode_frame(frame, fmt), fmt) == frame


def test_unknown_message_action_is_refused_and_can_be_answered() -> None:
    recorded = next(frame for frame in SERVER_FRAMES if _has_unknown_message_action(frame.wire))
    with pytest.raises(FrameError, match="unknown message action 42") as caught:
        decode_frame(recorded.raw, recorded.fmt)
    assert caught.value.channel == recorded.wire["channel"]


def _has_unknown_message_action(wire: dict[str, Any]) -> bool:
    return any(message.get("action", 0) > 5 for message in wire.get("messages") or [])


def _content(value: Any) -> Any:
    """The map without what is absent by the rules of protocol section 2.4: nulls, and the stray `size`."""
    if isinstance(value, dict):
        return {key: _content(item) for key, item in value.items() if item is not None and key != "size"}
    if isinstance(value, list):
        return [_content(item) for item in value]
    return value
