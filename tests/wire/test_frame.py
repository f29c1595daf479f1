"""Decoding frames: what is tolerated, what is refused, and what a refusal says."""

from __future__ import annotations

from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.errors import BadRequest, ErrorInfo
from selfhost_transport.wire.actions import Action, Flag, MessageAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.codec import Format, pack, unpack
from selfhost_transport.wire.details import ConnectionDetails
from selfhost_transport.wire.frame import (
    AckResult,
    CancelReceipt,
    Frame,
    FrameError,
    TurnReceipt,
    decode_frame,
    encode_frame,
    frame_map,
)
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.presence import PresenceMessage
from tests.wire.strategies import messages, plain_values

FIELDS = [
    "action", "id", "channel", "channelSerial", "connectionId", "connectionKey", "connectionDetails", "msgSerial",
    "count", "res", "error", "flags", "params", "timestamp", "messages", "presence", "annotations", "state", "auth",
]  # fmt: skip
ITEM_FIELDS = [
    "id",
    "name",
    "data",
    "encoding",
    "extras",
    "action",
    "version",
    "clientId",
    "timestamp",
    "serial",
]


def decode(**wire: Any) -> Frame:
    return decode_frame(orjson.dumps(wire), Format.JSON)


def refuse(**wire: Any) -> FrameError:
    with pytest.raises(FrameError) as caught:
        decode(**wire)
    return caught.value


def test_null_is_absent() -> None:
    nothing = dict.fromkeys(FIELDS, None)
    assert decode(**{**nothing, "action": 15}) == Frame(Action.MESSAGE)
    item = dict.fromkeys(ITEM_FIELDS, None)
    assert decode(action=15, messages=[item]).messages == [Message()]


def test_unknown_fields_and_actions_are_tolerated() -> None:
    frame = decode(action=99, novelty={"a": 1}, channel="c")
    assert (frame.action, frame.channel) == (99, "c")
    assert not isinstance(frame.action, Action)


def test_zero_and_empty_are_written() -> None:
    frame = Frame(
        Action.HEARTBEAT, channel="", msg_serial=0, count=0, flags=0, messages=[Message(data="", extras={})]
    )
    assert frame_map(frame, Format.JSON) == {
        "action": 0,
        "channel": "",
        "msgSerial": 0,
        "count": 0,
        "flags": 0,
        "messages": [{"data": "", "extras": {}}],
    }


def test_params_become_text() -> None:
    frame = decode(action=10, channel="c", params={"rewind": 1, "x": True, "y": None, "z": 1.5, "w": 2.0})
    assert frame.params == {"rewind": "1", "x": "true", "z": "1.5", "w": "2"}


def test_whole_numbers_may_arrive_as_floating_point() -> None:
    frame = decode_frame(msgpack.packb({"action": 15.0, "msgSerial": 3.0}), Format.MSGPACK)
    assert (frame.action, frame.msg_serial) == (Action.MESSAGE, 3)


def test_refusal_carries_what_an_answer_needs() -> None:
    error = refuse(action=15, channel="c", msgSerial=7, messages=[{"data": "ok"}, {"data": {"a": 1}}])
    assert (error.action, error.msg_serial, error.count, error.channel) == (Action.MESSAGE, 7, 1, "c")
    assert error.needs_nack
    assert error.info.code == 40013
    assert error.info.message == "messages[1]: data must be a string or binary, not a map"


def test_refusal_without_a_usable_number_is_not_answered_with_a_nack() -> None:
    assert not refuse(action=15, msgSerial="x", messages=[]).needs_nack
    assert not refuse(action=10, channel="c", flags="x").needs_nack
    # An absent number is 0 (protocol section 6.3).
    absent = refuse(action=14, presence=[1])
    assert (absent.needs_nack, absent.msg_serial) == (True, 0)


@pytest.mark.parametrize(
    ("wire", "code", "reason"),
    [
        ({"channel": 5}, 40000, "channel must be a string, not a number"),
        ({"flags": True}, 40000, "flags must be an integer, not a boolean"),
        ({"flags": -1}, 40000, "flags is outside"),
        ({"msgSerial": 1.5}, 40000, "msgSerial must be an integer"),
        ({"timestamp": 2**63}, 40000, "timestamp is outside"),
        ({"params": {"a": []}}, 40000, "params.a must be a string, number or boolean"),
        ({"params": []}, 40000, "params must be a map"),
        ({"messages": {}}, 40000, "messages must be a list, not a map"),
        ({"messages": ["x"]}, 40000, r"messages\[0\] must be a map"),
        ({"messages": [{"name": 5}]}, 40000, "name must be a string"),
        ({"messages": [{"data": "!", "encoding": "base64"}]}, 40013, "not base64"),
        ({"messages": [{"data": "é", "encoding": "base64"}]}, 40013, "not base64"),
        ({"messages": [{"data": "x", "encoding": 1}]}, 40013, "encoding must be a string"),
        ({"messages": [{"extras": "x"}]}, 40032, "extras must be a map"),
        ({"messages": [{"action": 42}]}, 40003, "unknown message action 42"),
        ({"messages": [{"version": "v1"}]}, 40000, "version must be a map"),
        ({"messages": [{"version": {"metadata": {"a": 1}}}]}, 40000, "metadata must map strings to strings"),
        ({"presence": [{"action": 9}]}, 40003, "unknown presence action 9"),
        ({"annotations": [{"action": 2}]}, 40003, "unknown annotation action 2"),
        ({"auth": "token"}, 40000, "auth must be a map"),
        ({"auth": {"accessToken": 1}}, 40000, "accessToken must be a string"),
        ({"error": {"code": "x"}}, 40000, "code must be an integer"),
        ({"res": ["x"]}, 40000, "res must be"),
        ({"res": [{"serials": [1]}]}, 40000, "res must be"),
        ({"res": [{"serials": [], "turn": 1}]}, 40000, "turn must be a map"),
        ({"res": [{"serials": [], "cancel": {"matched": [1]}}]}, 40000, "matched must be a list of strings"),
        ({"connectionDetails": {"maxMessageSize": "x"}}, 40000, "maxMessageSize must be an integer"),
    ],
)
def test_wrong_types_are_named(wire: dict[str, Any], code: int, reason: str) -> None:
    with pytest.raises(FrameError, match=reason) as caught:
        decode(action=15, **wire)
    assert caught.value.info.code == code


@pytest.mark.parametrize("action", [None, "15", -1, 1.5, True, [], 2**40])
def test_a_frame_without_a_usable_action_cannot_be_answered(action: object) -> None:
    with pytest.raises(BadRequest) as caught:
        decode(action=action)
    assert not isinstance(caught.value, FrameError)


def test_deep_causes_are_dropped() -> None:
    error: dict[str, Any] = {"code": 1}
    for code in range(2, 200):
        error = {"code": code, "statusCode": 400, "message": "m", "cause": error}
    info = decode(action=9, error=error).error
    depth = 0
    while info is not None:
        info, depth = info.cause, depth + 1
    assert depth == 9


FULL = Frame(
    Action.ATTACHED,
    id="i",
    channel="c",
    channel_serial="s",
    connection_id="ci",
    connection_key="ck",
    connection_details=ConnectionDetails("me", "k", 1, 2, 3, 4, 5, 0, "srv", "loc", 6),
    msg_serial=0,
    count=1,
    res=[
        AckResult(["a", None]),
        AckResult(
            [], TurnReceipt("t", "queued", True, ("u",)), CancelReceipt("p", ("t",), ("v",), ("d",), ("t",))
        ),
    ],
    error=ErrorInfo(40160, 401, "no", "http://help", {"a": 1}, ErrorInfo(1, 2, "why")),
    flags=Flag.RESUMED | Flag.PUBLISH,
    params={"rewind": "5"},
    timestamp=1,
    messages=[
        Message(data=b"\x00", action=MessageAction.APPEND, version=Version("v", 1, "c", "d", {"k": "v"}))
    ],
    presence=[
        PresenceMessage(data="x", client_id="c", connection_id="d", id="i", timestamp=2, extras={"a": []})
    ],
    annotations=[Annotation("i", "s", "t:total.v1", None, "n", 2, b"d", "utf-8", {}, "s", "c", "k", 3)],
    state=[{"operation": {"action": 1}}],
    access_token="token",
)


@pytest.mark.parametrize("fmt", Format)
def test_every_field_survives(fmt: Format) -> None:
    assert decode_frame(encode_frame(FULL, fmt), fmt) == FULL
    assert set(frame_map(FULL, fmt)) == set(FIELDS)


def test_the_default_attached_frame_on_the_wire() -> None:
    frame = Frame(Action.ATTACHED, channel="c", channel_serial="s", flags=Flag(3080192))
    assert (
        encode_frame(frame, Format.JSON) == b'{"action":11,"channel":"c","channelSerial":"s","flags":3080192}'
    )


@given(st.lists(messages, max_size=3), st.sampled_from(Format), st.sampled_from(Format))
def test_a_message_crosses_formats_unchanged(items: list[Message], first: Format, second: Format) -> None:
    frame = Frame(Action.MESSAGE, channel="c", messages=items)
    there = decode_frame(encode_frame(frame, first), first)
    assert there == frame
    assert decode_frame(encode_frame(there, second), second) == frame


def _never_crashes(raw: str | bytes, fmt: Format) -> None:
    try:
        frame = decode_frame(raw, fmt)
    except BadRequest as error:
        assert 40000 <= error.info.code < 40100
        assert error.info.message
        return
    for other in Format:
        assert decode_frame(encode_frame(frame, other), other).action == frame.action


@given(st.binary(max_size=200), st.sampled_from(Format))
def test_no_bytes_crash_the_decoder(raw: bytes, fmt: Format) -> None:
    _never_crashes(raw, fmt)


@given(st.text(max_size=200))
def test_no_text_crashes_the_decoder(raw: str) -> None:
    _never_crashes(raw, Format.JSON)
    _never_crashes(raw, Format.MSGPACK)


items = st.dictionaries(st.sampled_from(ITEM_FIELDS), plain_values | st.binary(max_size=5), max_size=5)
anything = plain_values | st.binary(max_size=5) | st.lists(items, max_size=3)


@given(
    st.dictionaries(st.sampled_from(FIELDS), anything),
    st.integers(0, 30) | plain_values,
    st.sampled_from(Format),
)
def test_no_content_crashes_the_decoder(wire: dict[str, Any], action: object, fmt: Format) -> None:
    _never_crashes(pack({**wire, "action": action}, fmt), fmt)


@given(st.binary(min_size=1, max_size=6), st.integers(0, 2000))
def test_no_damaged_frame_crashes_the_decoder(damage: bytes, at: int) -> None:
    for fmt in Format:
        raw = bytearray(encode_frame(FULL, fmt))
        start = at % len(raw)
        raw[start : start + len(damage)] = damage
        _never_crashes(bytes(raw), fmt)
        _never_crashes(bytes(raw[:start]), fmt)


def test_msgpack_binary_stays_binary_and_json_gets_base64() -> None:
    frame = Frame(
        Action.MESSAGE, messages=[Message(data=b"\x01\x02\xff", encoding="utf-8/cipher+aes-128-cbc")]
    )
    assert unpack(encode_frame(frame, Format.MSGPACK), Format.MSGPACK)["messages"] == [
        {"data": b"\x01\x02\xff", "encoding": "utf-8/cipher+aes-128-cbc"}
    ]
    assert unpack(encode_frame(frame, Format.JSON), Format.JSON)["messages"] == [
        {"data": "AQL/", "encoding": "utf-8/cipher+aes-128-cbc/base64"}
    ]
