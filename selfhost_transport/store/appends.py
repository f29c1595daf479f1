"""Appends of one publisher that are written together (protocol section 7.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.store.entries import NO_OPERATION, MessageOperation, type_letter
from selfhost_transport.wire.serial import MAX_INDEX

MAX_APPENDS = MAX_INDEX + 1
"""Appends that may be written as one: each has an index of its own in the version's serial."""


@dataclass(frozen=True, slots=True)
class MessageAppend:
    """One append. `extras` and `name` replace those of the message when given; `publish_id` recognises a repeat."""

    data: str | bytes | None
    encoding: str | None = None
    extras: dict[str, Any] | None = None
    name: str | None = None
    operation: MessageOperation = NO_OPERATION
    publish_id: str = ""

    def joins(self, other: MessageAppend) -> bool:
        """Whether both can be one append: their data are of one kind."""
        return type_letter(self.data) == type_letter(other.data) and self.encoding == other.encoding


def joined(appends: Sequence[MessageAppend]) -> MessageAppend:
    """Several appends as one: the data in order, and of the rest what came last.

    Its version is that of the last: the serial's index counts the appends in it. Raises InvalidArgument for appends
    that do not join, and for more than MAX_APPENDS.
    """
    if len(appends) > MAX_APPENDS:
        raise InvalidArgument(f"at most {MAX_APPENDS} appends are written as one")
    whole = appends[0]
    for append in appends[1:]:
        if not whole.joins(append):
            raise InvalidArgument("appends of different kinds of data cannot be written as one")
        whole = replace(
            append,
            data=_concatenated(whole.data, append.data),
            extras=append.extras if append.extras is not None else whole.extras,
            name=append.name if append.name is not None else whole.name,
        )
    return replace(whole, operation=replace(whole.operation, index=len(appends) - 1))


def _concatenated(first: str | bytes | None, second: str | bytes | None) -> str | bytes | None:
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    return first + second if isinstance(first, bytes) and isinstance(second, bytes) else None
