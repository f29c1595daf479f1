"""Message ids, frame fingerprints and sizes (protocol sections 4.5, 6.4 and 6.7)."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import BadRequest, MessageTooLarge
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, decode_frame
from selfhost_transport.wire.ids import assign_ids, client_id_base, default_id_base, fingerprint
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.sizes import check_publish_size, message_size, publish_size
from tests.wire.recordings import frames


def with_ids(*ids: str | None) -> list[Message]:
    return [Message(id=item) for item in ids]


@pytest.mark.parametrize(
    ("ids", "base"),
    [
        ((None,), None),
        ((None, None), None),
        (("any",), "any"),
        (("any:0",), "any"),
        (("any:7",), "any:7"),
        ((":0",), ":0"),
        (("a:b:0", "a:b:1"), "a:b"),
        (("b64/+=:0", "b64/+=:1", "b64/+=:2"), "b64/+="),
    ],
)
def test_id_base(ids: tuple[str | None, ...], base: str | None) -> None:
    assert client_id_base(with_ids(*ids)) == base


@pytest.mark.parametrize(
    "ids",
    [
        ("",),
        ("a:0", None),
        (None, "a:1"),
        ("a:0", "b:1"),
        ("a:0", "a:2"),
        ("a:1", "a:0"),
        ("a", "a:1"),
        ("a:0", "a:0"),
    ],
)
def test_ids_that_are_not_of_one_publish(ids: tuple[str | None, ...]) -> None:
    with pytest.raises(BadRequest) as caught:
        client_id_base(with_ids(*ids))
    assert (caught.value.info.code, caught.value.info.status_code) == (40031, 400)


def test_default_ids() -> None:
    messages = with_ids(None, None)
    assign_ids(messages, default_id_base("conn", 7))
    assert [message.id for message in messages] == ["conn:7:0", "conn:7:1"]
    single = with_ids("mine")
    assign_ids(single, "conn:8")
    assert single[0].id == "mine"


def test_fingerprints_differ_between_frames_but_not_between_repeats() -> None:
    raw = b'{"action":15,"channel":"c","msgSerial":3,"messages":[{"data":"x"}]}'
    frame = decode_frame(raw, Format.JSON)
    again = decode_frame(raw.replace(b'"msgSerial":3', b'"msgSerial":9'), Format.JSON)
    other = decode_frame(raw.replace(b'"x"', b'"y"'), Format.JSON)
    elsewhere = decode_frame(raw.replace(b'"c"', b'"d"'), Format.JSON)
    assert fingerprint(frame) == fingerprint(again)
    assert len({fingerprint(frame), fingerprint(other), fingerprint(elsewhere)}) == 3
    assert fingerprint(Frame(Action.PRESENCE, channel="c")) != fingerprint(Frame(Action.MESSAGE, channel="c"))


def published(scenario: str) -> dict[int, list[str]]:
    """Fingerprints of the frames published in a recording, by msgSerial."""
    sent: dict[int, list[str]] = {}
    for recorded in frames("c2s"):
        if recorded.scenario == scenario and recorded.fmt is Format.JSON and recorded.wire["action"] == 15:
            frame = decode_frame(recorded.raw, recorded.fmt)
            sent.setdefault(frame.msg_serial or 0, []).append(fingerprint(frame))
    return sent


def test_a_frame_that_the_js_sdk_repeats_after_a_resume_has_the_same_fingerprint() -> None:
    assert any(len(set(prints)) < len(prints) for prints in published("js-resume").values())


def test_a_number_that_the_python_sdk_uses_again_has_another_fingerprint() -> None:
    prints = published("py-resume")[0]
    assert len(prints) == len(set(prints)) == 2


def test_size_counts_name_client_id_data_and_extras() -> None:
    message = Message(name="nä", client_id="cc", data="é€", extras={"a": {"b": "c"}}, id="x" * 100)
    assert message_size(message) == 3 + 2 + 5 + len('{"a":{"b":"c"}}')
    assert message_size(Message(data=b"\x00" * 7)) == 7
    assert message_size(Message()) == 0
    assert publish_size([message, Message(data="abc")]) == message_size(message) + 3


def test_size_limit() -> None:
    messages = [Message(data="x" * 60), Message(data="x" * 40)]
    check_publish_size(messages, 100)
    with pytest.raises(MessageTooLarge) as caught:
        check_publish_size(messages, 99)
    assert caught.value.info.code == 40009
