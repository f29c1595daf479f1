"""Typed values out of a wire map: null is absent, the wrong type is a BadRequest naming the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfhost_transport.errors import BadRequest
from selfhost_transport.wire.codec import check_plain, kind

MAX_SAFE_INT = 2**53
"""Integers that arrive as floating point are exact below this."""
MAX_INT64 = 2**63 - 1

Wire = Mapping[str, Any]


def expect(expected: str, where: str, value: object, code: int = 40000) -> BadRequest:
    """The error for a value of the wrong type."""
    return BadRequest(f"{where} must be {expected}, not {kind(value)}", code=code)


def text(wire: Wire, name: str) -> str | None:
    """A string field."""
    value = wire.get(name)
    if value is None or type(value) is str:
        return value
    raise expect("a string", name, value)


def integer(wire: Wire, name: str, low: int = 0, high: int = MAX_INT64) -> int | None:
    """An integer field within bounds; a whole floating-point number counts as one."""
    value = wire.get(name)
    if value is None:
        return None
    if isinstance(value, float) and abs(value) < MAX_SAFE_INT and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise expect("an integer", name, value)
    if not low <= value <= high:
        raise BadRequest(f"{name} is outside {low}..{high}")
    return value


def items(wire: Wire, name: str) -> list[Any] | None:
    """A list field, its items not examined."""
    value = wire.get(name)
    if value is None or isinstance(value, list):
        return value
    raise expect("a list", name, value)


def mapping(wire: Wire, name: str, code: int = 40000) -> dict[str, Any] | None:
    """An opaque map field that both formats can carry."""
    value = wire.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise expect("a map", name, value, code)
    check_plain(value, name, code)
    return value


def submap(wire: Wire, name: str) -> Wire | None:
    """A map field whose own fields are read next."""
    value = wire.get(name)
    if value is None or isinstance(value, Mapping):
        return value
    raise expect("a map", name, value)


def text_map(wire: Wire, name: str) -> dict[str, str] | None:
    """A map of strings to strings."""
    value = wire.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise expect("a map", name, value)
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, str):
            raise BadRequest(f"{name} must map strings to strings")
    return value


def scalar_map(wire: Wire, name: str) -> dict[str, str] | None:
    """A map of scalars, as text: params arrive as strings, numbers or booleans (protocol section 5.3)."""
    value = wire.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise expect("a map", name, value)
    return {
        _key(key, name): _scalar(item, f"{name}.{key}") for key, item in value.items() if item is not None
    }


def _key(key: object, where: str) -> str:
    if isinstance(key, str):
        return key
    raise BadRequest(f"{where} has a key that is not a string")


def _scalar(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < MAX_SAFE_INT:
        return str(int(value))
    if isinstance(value, int | float):
        return str(value)
    raise expect("a string, number or boolean", where, value)
