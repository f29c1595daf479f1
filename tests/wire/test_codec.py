"""Bytes that are not a value, or hold what the other format could not carry."""

from __future__ import annotations

import msgpack
import pytest

from selfhost_transport.errors import BadRequest
from selfhost_transport.wire.codec import MAX_DEPTH, Format, check_plain, pack, unpack, unpack_map

BAD_JSON = [
    "",
    "{",
    "[1,]",
    '{"a":NaN}',
    '{"a":Infinity}',
    '{"a":1e999}',
    "[" * 100_000,
    '{"a":1}x',
    b"\xff{}",
    '"\\ud800',
]
BAD_MSGPACK = [
    b"",
    b"\xc1",
    b"\x81",
    b"\x91" * 5000,
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\x80\x80",
    b"\x81\x01\x02",
    b"\xa2\xff\xfe",
    "text",
]


@pytest.mark.parametrize("raw", BAD_JSON, ids=lambda raw: repr(raw[:12]))
def test_bad_json_is_a_bad_request(raw: str | bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        unpack(raw, Format.JSON)
    assert caught.value.info.code == 40001


@pytest.mark.parametrize("raw", BAD_MSGPACK, ids=lambda raw: repr(raw[:12]))
def test_bad_msgpack_is_a_bad_request(raw: str | bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        unpack(raw, Format.MSGPACK)
    assert caught.value.info.code == 40001


@pytest.mark.parametrize(
    ("raw", "found"), [("[]", "a list"), ("1", "a number"), ("null", "null"), ('"a"', "a string")]
)
def test_anything_but_a_map_is_named(raw: str, found: str) -> None:
    with pytest.raises(BadRequest, match=found):
        unpack_map(raw, Format.JSON)


def test_nested_announcements_of_long_arrays_reserve_little() -> None:
    # Each level announces as many items as the message has bytes.
    with pytest.raises(BadRequest):
        unpack((b"\xdd" + (400_000).to_bytes(4, "big")) * 80_000, Format.MSGPACK)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ('"\\ud800"', "\ufffd"),
        ('"a\\uDC00b"', "a\ufffdb"),
        ('"\\ud83d\\ude00\\ud83d"', "\U0001f600\ufffd"),
        ('["\\ud800",{"\\udfff":1}]', ["\ufffd", {"\ufffd": 1}]),
    ],
)
def test_lone_surrogates_of_json_become_replacement_characters(raw: str, text: object) -> None:
    assert unpack(raw, Format.JSON) == text
    assert unpack(raw.encode(), Format.JSON) == text


def test_lone_surrogates_of_msgpack_become_replacement_characters() -> None:
    assert unpack(b"\xa4\xed\xa0\x80x", Format.MSGPACK) == "\ufffdx"
    # A pair that was encoded as two three-byte sequences is its one character.
    assert unpack(b"\xa6\xed\xa0\xbd\xed\xb8\x80", Format.MSGPACK) == "\U0001f600"


def test_the_surrogate_path_is_as_strict_as_the_usual_one() -> None:
    for raw in (
        '{"a":"\\ud800","b":NaN}',
        '{"a":"\\ud800"',
        '{"a":"\\ud800"}}',
        '["\\ud800",' + "[" * 100_000,
    ):
        with pytest.raises(BadRequest):
            unpack(raw, Format.JSON)
    assert unpack('["\\ud800",' + "9" * 400 + "]", Format.JSON)[1] == float("inf")


def test_binary_in_a_json_document_is_base64() -> None:
    assert pack({"state": [b"\x00\x01"]}, Format.JSON) == b'{"state":["AAE="]}'


@pytest.mark.parametrize("fmt", Format)
@pytest.mark.parametrize("value", ["\ud800", 2**70, object()])
def test_what_cannot_be_encoded_is_a_bad_request(fmt: Format, value: object) -> None:
    with pytest.raises(BadRequest) as caught:
        pack({"a": value}, fmt)
    assert caught.value.info.code == 40013


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "not finite"),
        ([float("-inf")], "not finite"),
        ({"a": b"x"}, "binary"),
        ({b"a": 1}, "key"),
        (2**64, "64 bits"),
        (msgpack.ExtType(1, b"x"), "extension"),
        (msgpack.Timestamp(1), "extension"),
    ],
)
def test_values_that_json_cannot_carry_are_refused(value: object, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        check_plain(value, "extras", 40032)
    assert caught.value.info.code == 40032


def test_nesting_is_bounded() -> None:
    def nested(depth: int) -> object:
        value: object = 1
        for _ in range(depth):
            value = [value]
        return value

    check_plain(nested(MAX_DEPTH), "extras")
    with pytest.raises(BadRequest, match="levels"):
        check_plain(nested(MAX_DEPTH + 1), "extras")
    with pytest.raises(BadRequest, match="levels"):
        check_plain(nested(900), "extras")


def test_undefined_of_javascript_in_msgpack_is_absent_as_in_json() -> None:
    # As ably-js encodes {a: undefined, b: {c: undefined, d: null}, e: [undefined], f: 1}.
    raw = bytes.fromhex("84a161d40000a16282a163d40000a164c0a16591d40000a16601")
    assert unpack(raw, Format.MSGPACK) == {"b": {"d": None}, "e": [None], "f": 1}
    assert unpack(b"\xc7\x01\x00\x00", Format.MSGPACK) is None
