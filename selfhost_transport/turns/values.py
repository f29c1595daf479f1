"""JSON values as the codec sees them, and the one way they become text and come back.

What an application hands over may be any Python value. `carried` gives each kind its one fate, wherever it comes in:

    carried     None, bool, int of 64 bits, finite float, str, list, tuple, dict with text keys
    mended      half a surrogate pair: U+FFFD. NaN and infinities: null, as JavaScript does. An int of more than 64
                bits, Decimal, date and time, UUID, path: its text. An enum: its value. A set, or another collection:
                a list. A dataclass, a pydantic model: an object. A key that is a number, a bool or None: its JSON text
    refused     bytes, functions, generators, any other object; a value in itself; nesting over `MAX_DEPTH`; two keys
                that become one: InvalidArgument, which names the path
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import math
import numbers
import pathlib
import uuid
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

import orjson

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.wire.message import Message

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

MAX_DEPTH: Final = 200
"""Levels of nesting in a value."""


class Absent(Enum):
    """The type of `ABSENT`: JavaScript's `undefined`, which is not the same as null in a tool's output."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT

# What the encoder would write in a way of its own is left to `carried`.
_STRICT: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)
# The encoder stops at 254 levels; this number of lists around a value leaves it MAX_DEPTH.
_AROUND: Final = 254 - MAX_DEPTH
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_AS_TEXT: Final = (
    decimal.Decimal, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, pathlib.PurePath,
)  # fmt: skip


def to_text(value: Any, what: str = "the value") -> str:
    """Compact JSON text of a value. Raises InvalidArgument for what cannot be carried, with its path in `what`."""
    wrapped: object = value
    for _ in range(_AROUND):
        wrapped = [wrapped]
    try:
        return orjson.dumps(wrapped, option=_STRICT)[_AROUND:-_AROUND].decode()
    except (TypeError, RecursionError):
        return orjson.dumps(_read(value, what)).decode()


def as_text(value: Json | Absent) -> str:
    """What a tool was given, or gave, as models and providers' clients read it: text as it is, anything else as its JSON."""
    if isinstance(value, Absent):
        return ""
    return value if isinstance(value, str) else to_text(value)


def carried(value: Any, what: str = "the value") -> Json:
    """The JSON value that stands for any value of an application. Raises InvalidArgument, with its path in `what`."""
    text: Json = orjson.loads(to_text(value, what))
    return text


def whole_characters(text: str) -> str:
    """Halves of characters joined, and those without their other half replaced (STR-16)."""
    if is_whole(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def is_whole(text: str) -> bool:
    """Whether no character of it is cut in half."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
        return whole_characters(str(value)), None
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


def _read(value: Any, what: str) -> Json:
    """The value chunk by chunk. What its own methods raise is a fault of the value."""
    try:
        return _carried(value, what, ())
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(f"{what} cannot be read: {type(error).__name__}") from error


def _carried(value: Any, path: str, inside: tuple[int, ...]) -> Json:
    """`inside`: the identities of the values around this one."""
    match value:
        case None | True | False:
            return value
        case str():
            return whole_characters(str.__str__(value))
        case Enum():
            return _carried(value.value, path, inside)
        case numbers.Integral():
            number = int(value)
            return number if _MIN_INT <= number <= _MAX_INT else str(number)
        case datetime.date() | datetime.time():
            return value.isoformat()
        case numbers.Real():
            return real if math.isfinite(real := float(value)) else None
        case _ if isinstance(value, _AS_TEXT):
            return whole_characters(str(value))
    if id(value) in inside:
        raise InvalidArgument(f"{path} is contained in itself, which cannot be written as JSON")
    if len(inside) >= MAX_DEPTH:
        raise InvalidArgument(f"{path[:100]}… is nested more than {MAX_DEPTH} levels deep")
    return _container(value, path, (*inside, id(value)))


def _container(value: Any, path: str, inside: tuple[int, ...]) -> Json:
    if isinstance(value, bytes | bytearray | memoryview):
        raise InvalidArgument(f"{path} is binary; give text, for example base64")
    try:
        held = _content(value)
        if isinstance(held, Mapping):
            return _object(list(held.items()), path, inside)
        items = None if held is None else list(held)
    except InvalidArgument:
        raise
    except Exception as error:
        raise InvalidArgument(f"{path} cannot be read: {type(error).__name__}") from error
    if items is None:
        raise InvalidArgument(f"{path} is of the type {type(value).__name__}, which JSON cannot carry")
    return [_carried(item, f"{path}[{number}]", inside) for number, item in enumerate(items)]


def _content(value: Any) -> Mapping[Any, Any] | Iterable[Any] | None:
    """The items of a value that has some; None: it has none that can be carried."""
    if isinstance(value, type):
        return None
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):
        dumped = dump()
        return dumped if isinstance(dumped, Mapping | list) else [dumped]
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    return value if isinstance(value, Collection) else None


def _object(items: Iterable[tuple[Any, Any]], path: str, inside: tuple[int, ...]) -> Json:
    found: dict[str, Json] = {}
    for key, item in items:
        name = _key(key, path)
        if name in found:
            raise InvalidArgument(f"{path} has two keys that are both written as {name!r}")
        found[name] = _carried(item, f"{path}.{name}", inside)
    return found


def _key(key: Any, path: str) -> str:
    if isinstance(key, str):
        return whole_characters(str.__str__(key))
    if key is None or isinstance(key, (Enum, numbers.Real, *_AS_TEXT)):
        name = _carried(key, path, ())
        return name if isinstance(name, str) else orjson.dumps(name).decode()
    raise InvalidArgument(f"{path} has a key of the type {type(key).__name__}; keys are texts")
