"""The transcoding rule of protocol section 6.1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.message import Message, decode_message, encode_message
from tests.wire.strategies import encodings


@pytest.mark.parametrize(
    ("data", "encoding", "stored", "chain"),
    [
        ("AAE=", "base64", b"\x00\x01", None),
        ("AAE=", "json/utf-8/cipher+aes-128-cbc/base64", b"\x00\x01", "json/utf-8/cipher+aes-128-cbc"),
        ("", "base64", b"", None),
        ('{"a":1}', "json", '{"a":1}', "json"),
        ("QUFFPQ==", "base64/base64", b"\x00\x01", None),
        ("base64", None, "base64", None),
        ("AAE=", "base64/json", "AAE=", "base64/json"),
        ("AAE=", "notbase64", "AAE=", "notbase64"),
    ],
)
@pytest.mark.parametrize("fmt", Format)
def test_trailing_base64_is_undone_on_receipt(
    data: str, encoding: str | None, stored: str | bytes, chain: str | None, fmt: Format
) -> None:
    message = decode_message({"data": data, "encoding": encoding}, fmt)
    assert (message.data, message.encoding) == (stored, chain)


@given(st.binary(max_size=50), encodings)
def test_binary_is_the_same_for_readers_of_both_formats(data: bytes, encoding: str | None) -> None:
    message = Message(data=data, encoding=encoding)
    for fmt in Format:
        wire = encode_message(message, fmt)
        assert isinstance(wire["data"], str if fmt is Format.JSON else bytes)
        assert decode_message(wire, fmt) == message


@given(st.text(max_size=50), encodings)
def test_text_is_the_same_on_the_wire_of_both_formats(data: str, encoding: str | None) -> None:
    message = Message(data=data, encoding=encoding)
    assert encode_message(message, Format.JSON) == encode_message(message, Format.MSGPACK)
    assert decode_message(encode_message(message, Format.JSON), Format.JSON) == message


def test_extras_are_kept_verbatim() -> None:
    extras = {
        "ai": {"transport": {"run-id": "r", "empty": ""}, "codec": {}},
        "headers": {"n": 1, "b": False, "x": None},
    }
    assert decode_message({"extras": extras}, Format.JSON).extras == extras
