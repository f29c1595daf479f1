"""Appends of one publisher that are written together (protocol section 7.6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.store.entries import NO_OPERATION, Operation, type_letter
from selfhost_transport.wire.serial import MAX_INDEX

MAX_PIECES = MAX_INDEX + 1
"""Appends that may be written as one: each has an index of its own in the version's serial."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One append. `extras` and `name` replace those of the message when given; `publish_id` recognises a repeat."""

    data: str | bytes | None
    encoding: str | None = None
    extras: dict[str, Any] | None = None
    name: str | None = None
    operation: Operation = NO_OPERATION
    publish_id: str = ""

    def joins(self, other: Piece) -> bool:
        """Whether both can be one append: their data are of one kind."""
        return type_letter(self.data) == type_letter(other.data) and self.encoding == other.encoding


def joined(pieces: Sequence[Piece]) -> Piece:
    """Several appends as one: the data in order, and of the rest what came last.

    Its version is that of the last: the serial's index counts the appends in it. Raises InvalidArgument for pieces
    that do not join, and for more than MAX_PIECES.
    """
    if len(pieces) > MAX_PIECES:
        raise InvalidArgument(f"at most {MAX_PIECES} appends are written as one")
    whole = pieces[0]
    for piece in pieces[1:]:
        if not whole.joins(piece):
            raise InvalidArgument("appends of different kinds of data cannot be written as one")
        whole = replace(
            piece,
            data=_concatenated(whole.data, piece.data),
            extras=piece.extras if piece.extras is not None else whole.extras,
            name=piece.name if piece.name is not None else whole.name,
        )
    return replace(whole, operation=replace(whole.operation, index=len(pieces) - 1))


def _concatenated(first: str | bytes | None, second: str | bytes | None) -> str | bytes | None:
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    return first + second if isinstance(first, bytes) and isinstance(second, bytes) else None
