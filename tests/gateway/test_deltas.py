"""What is written to a subscription with deltas: chains of encodings, and when a message stays whole."""

from __future__ import annotations

import pytest

from gateway.fanout.delivery import encode_websocket
from gateway.fanout.deltas import DeltaWriter
from selfhost_transport.wire.actions import Action, MessageAction
from selfhost_transport.wire.frame import Frame, decode_frame
from selfhost_transport.wire.message import Format, Message, Version
from selfhost_transport.wire.websocket import ws_payload

TEXT = "a text that is long enough to be sent as a delta"


class Written:
    """A writer, and what it has written."""

    def __init__(self, fmt: Format) -> None:
        self._fmt = fmt
        self._frames: list[bytes] = []
        self._writer = DeltaWriter(self._frames.append, fmt)
        self._count = 0

    def send(self, *messages: Message) -> list[Message]:
        """Write one frame; what the client gets."""
        for message in messages:
            self._count += 1
            message.id, message.serial = f"m:{self._count}", f"s:{self._count}"
            message.action = message.action or MessageAction.CREATE
            message.version = Version(message.serial, 1)
        frame = Frame(Action.MESSAGE, channel="c", channel_serial="s", messages=list(messages))
        self._writer.write(encode_websocket(frame, self._fmt))
        found = decode_frame(ws_payload(self._frames[-1]), self._fmt)
        assert (found.channel, found.channel_serial) == ("c", "s")
        return found.messages or []

    def pass_on(self, raw: bytes) -> bytes:
        """Write anything; what the client gets."""
        self._writer.write(raw)
        return self._frames[-1]


@pytest.fixture(params=list(Format))
def written(request: pytest.FixtureRequest) -> Written:
    return Written(request.param)


@pytest.mark.parametrize(
    ("data", "encoding", "chain"),
    [
        (TEXT, None, "utf-8/vcdiff"),
        (f'"{TEXT}"', "json", "json/utf-8/vcdiff"),
        (TEXT.encode(), None, "vcdiff"),
        (TEXT.encode(), "utf-8/cipher+aes-256-cbc", "utf-8/cipher+aes-256-cbc/vcdiff"),
    ],
)
def test_the_chain_leads_back_to_the_text(
    written: Written, data: str | bytes, encoding: str | None, chain: str
) -> None:
    (first,) = written.send(Message(data=data, encoding=encoding))
    assert (first.data, first.encoding, first.extras) == (data, encoding, None)
    (second,) = written.send(Message(data=data, encoding=encoding, extras={"headers": {"a": "b"}}))
    assert isinstance(second.data, bytes) and len(second.data) < len(data)
    assert second.encoding == chain
    assert second.extras == {"headers": {"a": "b"}, "delta": {"from": "m:1", "format": "vcdiff"}}


def test_messages_of_one_frame_follow_each_other(written: Written) -> None:
    messages = written.send(Message(data=TEXT), Message(data=TEXT + "!"), Message(data=TEXT + "?"))
    assert [message.extras and message.extras["delta"]["from"] for message in messages] == [
        None,
        "m:1",
        "m:2",
    ]


@pytest.mark.parametrize(
    "base",
    [
        Message(),
        Message(data=""),
        Message(data="something else altogether, nothing of which can be used"),
    ],
)
def test_without_a_base_that_helps_a_message_is_whole(written: Written, base: Message) -> None:
    written.send(Message(data=TEXT))
    written.send(base)
    (message,) = written.send(Message(data=TEXT))
    assert (message.data, message.extras) == (TEXT, None)


@pytest.mark.parametrize("action", [MessageAction.UPDATE, MessageAction.DELETE, MessageAction.APPEND])
def test_changes_are_whole_and_the_next_delta_starts_from_them(
    written: Written, action: MessageAction
) -> None:
    written.send(Message(data=TEXT))
    (changed,) = written.send(Message(data=TEXT + "!", action=action))
    assert (changed.data, changed.extras) == (TEXT + "!", None)
    (message,) = written.send(Message(data=TEXT + "!!"))
    assert message.extras == {"delta": {"from": "m:2", "format": "vcdiff"}}


def test_text_in_an_encoding_of_the_applications_own_is_whole(written: Written) -> None:
    for _ in range(2):
        (message,) = written.send(Message(data=TEXT, encoding="rot13"))
        assert (message.data, message.encoding) == (TEXT, "rot13")


def test_frames_of_another_kind_pass(written: Written) -> None:
    frames: list[bytes] = []
    raw = encode_websocket(Frame(Action.SYNC, channel="c", presence=[]), Format.MSGPACK)
    DeltaWriter(frames.append, Format.MSGPACK).write(raw)
    assert frames == [raw]


def test_a_frame_that_cannot_be_read_passes_and_the_next_message_is_whole(written: Written) -> None:
    written.send(Message(data=TEXT))
    assert written.pass_on(b"\x82\x01\xc1") == b"\x82\x01\xc1"
    (message,) = written.send(Message(data=TEXT))
    assert (message.data, message.extras) == (TEXT, None)
