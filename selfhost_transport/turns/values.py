"""JSON values as the codec sees them, and the one way they become text and come back."""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeAlias

import orjson

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.wire.message import Message

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class Absent(Enum):
    """The type of `ABSENT`: JavaScript's `undefined`, which is not the same as null in a tool's output."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


def to_text(value: Json) -> str:
    """Compact JSON text. Raises InvalidArgument for what JSON cannot carry."""
    try:
        return orjson.dumps(value).decode()
    except TypeError as error:
        raise InvalidArgument(f"the value cannot be written as JSON: {error}") from error


def from_text(text: str | bytes) -> Json | Absent:
    """The value of a JSON text; ABSENT when it is not JSON."""
    try:
        value: Json = orjson.loads(text)
    except (ValueError, TypeError):
        return ABSENT
    return value


def pack(value: Json | Absent) -> tuple[str, str | None]:
    """(data, encoding) of a payload: strings travel plain, the rest as JSON text (protocol section 2.2)."""
    if isinstance(value, str):
        return value, None
    return ("", None) if isinstance(value, Absent) else (to_text(value), "json")


def unpack(message: Message) -> Json | Absent:
    """The payload of a received message; what cannot be decoded is given as the text it is."""
    data = message.data
    if data is None:
        return ABSENT
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    if message.encoding is None or "json" not in message.encoding:
        return text
    value = from_text(text)
    return text if isinstance(value, Absent) else value


def text_of(message: Message) -> str:
    """The payload as text, however it was carried; "" when there is none."""
    value = unpack(message)
    if isinstance(value, str):
        return value
    return "" if isinstance(value, Absent) else to_text(value)
