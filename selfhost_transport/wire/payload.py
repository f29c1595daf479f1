"""`data` and `encoding` between the wire and the storage form (protocol section 6.1, transcoding rule)."""

from __future__ import annotations

from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64
from typing import Any

from selfhost_transport.errors import BadRequest
from selfhost_transport.wire import fields
from selfhost_transport.wire.codec import Format

Payload = str | bytes | None


def decode_payload(wire: fields.Wire) -> tuple[Payload, str | None]:
    """`data` and `encoding` in storage form: trailing `base64` steps undone. Raises BadRequest 40013."""
    data, encoding = wire.get("data"), wire.get("encoding")
    if data is not None and not isinstance(data, str | bytes):
        raise fields.expect("a string or binary", "data", data, code=40013)
    if encoding is not None and not isinstance(encoding, str):
        raise fields.expect("a string", "encoding", encoding, code=40013)
    while encoding is not None and data is not None and encoding.rpartition("/")[2] == "base64":
        data = _decode_base64(data)
        encoding = encoding.rpartition("/")[0] or None
    return data, encoding


def encode_payload(data: Payload, encoding: str | None, fmt: Format, wire: dict[str, Any]) -> None:
    """Put `data` and `encoding` into a wire map: bytes are base64 text in JSON, binary in msgpack."""
    if isinstance(data, bytes) and fmt is Format.JSON:
        wire["data"] = b64encode(data).decode("ascii")
        wire["encoding"] = json_encoding(encoding)
        return
    if data is not None:
        wire["data"] = data
    if encoding is not None:
        wire["encoding"] = encoding


def json_encoding(encoding: str | None) -> str:
    """The chain of a binary payload in JSON, which ends in `base64`."""
    return f"{encoding}/base64" if encoding else "base64"


def _decode_base64(data: str | bytes) -> bytes:
    try:
        return a2b_base64(data, strict_mode=True)
    # A string outside ASCII is a plain ValueError.
    except (Base64Error, ValueError) as error:
        raise BadRequest(f"data is not base64 although encoding says so: {error}", code=40013) from error
