"""Arguments of an application are checked at the door: a wrong one is refused by name, before anything is done with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selfhost_transport.errors import InvalidArgument

_SHOWN = 80


def require_text(name: str, value: object) -> str:
    """A text that is not empty. Raises InvalidArgument."""
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"{name} is a text that is not empty, not {shown(value)}")
    return value


def optional_text(name: str, value: object) -> str | None:
    """The same, or None for what is not given."""
    return None if value is None else require_text(name, value)


def require_int(name: str, value: object, least: int | None = None) -> int:
    """A whole number, of `least` or more. Raises InvalidArgument."""
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        bound = "" if least is None else f" of {least} or more"
        raise InvalidArgument(f"{name} is a whole number{bound}, not {shown(value)}")
    return value


def require_callable(name: str, value: Any) -> Callable[..., Any]:
    """Something that can be called. Raises InvalidArgument."""
    if not callable(value):
        raise InvalidArgument(f"{name} is a function, not {shown(value)}")
    found: Callable[..., Any] = value
    return found


def shown(value: object) -> str:
    """A value in an error message: its type and the beginning of what it looks like."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}"
