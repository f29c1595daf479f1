"""A character cut in two between appends is one again; without its other half it is U+FFFD."""

from __future__ import annotations

import json
from typing import Any

import msgpack
import pytest

from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import decode_frame
from selfhost_transport.wire.halves import MAX_HELD, Halves
from selfhost_transport.wire.message import Message

FORMATS = pytest.mark.parametrize("fmt", list(Format))


def packed(fmt: Format, data: Any, serial: str = "s1", action: int = 5, **more: Any) -> str | bytes:
    message = {"action": action, "serial": serial, "data": data, **more}
    wire = {"action": 15, "channel": "c", "messages": [message]}
    if fmt is Format.JSON:
        return json.dumps(wire)
    return bytes(msgpack.packb(wire, unicode_errors="surrogatepass"))


def decoded(raw: str | bytes, fmt: Format, halves: Halves) -> Message:
    messages = decode_frame(raw, fmt, halves).messages
    assert messages is not None
    (message,) = messages
    return message


def texts(fmt: Format, *appends: Any) -> list[Any]:
    halves = Halves()
    return [decoded(packed(fmt, data), fmt, halves).data for data in appends]


@FORMATS
@pytest.mark.parametrize(
    ("appends", "expected"),
    [
        (["a \ud83d", "\ude00 b"], ["a ", "😀 b"]),
        (["\ud83d", "\ude00"], ["", "😀"]),
        (["\ud83d", "\ude00\ud83d", "\ude01"], ["", "😀", "😁"]),
        (["a \ud83d", "b"], ["a ", "\ufffdb"]),
        (["a \ud83d", ""], ["a ", "\ufffd"]),
        (["a \ud83d", None], ["a ", "\ufffd"]),
        (["\ude00 b"], ["\ufffd b"]),
        (["plain", "text"], ["plain", "text"]),
    ],
)
def test_halves_meet(fmt: Format, appends: list[Any], expected: list[Any]) -> None:
    assert texts(fmt, *appends) == expected


@FORMATS
def test_each_message_has_its_own(fmt: Format) -> None:
    halves = Halves()
    decode_frame(packed(fmt, "\ud83d", "s1"), fmt, halves)
    decode_frame(packed(fmt, "\ud83c", "s2"), fmt, halves)
    second = decoded(packed(fmt, "\udf0d", "s2"), fmt, halves)
    first = decoded(packed(fmt, "\ude00", "s1"), fmt, halves)
    assert (first.data, second.data) == ("😀", "🌍")
    assert not halves


@FORMATS
def test_only_the_text_of_appends_is_held_back(fmt: Format) -> None:
    halves = Halves()
    created = decoded(packed(fmt, "x \ud83d", action=0), fmt, halves)
    assert created.data == "x \ufffd"
    assert not halves


def test_what_is_held_is_bounded() -> None:
    halves = Halves()
    for number in range(MAX_HELD + 5):
        decode_frame(packed(Format.JSON, "\ud83d", f"s{number}"), Format.JSON, halves)
    assert len(halves._held) == MAX_HELD
