"""What a turn's worker writes in one step: messages created, streamed ones opened and closed, chunks of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from selfhost_transport.accelerator.plain import chunk_head
from selfhost_transport.redis_io.prepared_call import PreparedCall
from selfhost_transport.store.entries import Ref, pack_created, pack_value
from selfhost_transport.wire.message import Message


@dataclass(frozen=True, slots=True)
class CreateMessage:
    """Write one message. With `closing_extras` it stays open for appends, and this closes it if cancelled.

    `first`: the chunk that it begins with, an append of its own in the same step.
    """

    message: Message
    closing_extras: dict[str, Any] | None = None
    first: str = ""


@dataclass(frozen=True, slots=True)
class CloseMessage:
    """End an open message: a last chunk, usually empty, with its final extras."""

    ref: Ref
    extras: dict[str, Any]
    data: str = ""


WriteOperation = CreateMessage | CloseMessage


@dataclass(slots=True)
class OpenText:
    """An open message as its writer sees it: how far it is written, and what every chunk's entry begins with."""

    ref: Ref
    # Bytes written so far: makes a repeated chunk recognisable.
    offset: int = 0
    entry_head: bytes = field(init=False)
    # How its chunks get to Redis, once there was one.
    prepared: PreparedCall | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.entry_head = b"A" + str(self.ref).encode() + b"\n"


def packed_operations(operations: Sequence[WriteOperation]) -> list[str | bytes]:
    """Operations as the scripts read them (_write.lua)."""
    packed: list[str | bytes] = []
    for operation in operations:
        if isinstance(operation, CreateMessage):
            closing = b"" if operation.closing_extras is None else _closing(operation.closing_extras)
            packed += ["C", pack_created([operation.message]), _initial(operation.message), closing]
            if operation.first:
                raw = operation.first.encode()
                packed += ["F", chunk_head(len(raw)) + raw, raw]
        else:
            raw, extras = operation.data.encode(), pack_value(operation.extras)
            packed += ["X", str(operation.ref), _last_chunk(raw, extras), extras, raw]
    return packed


def _initial(message: Message) -> bytes:
    data = message.data
    return data.encode() if isinstance(data, str) else (data or b"")


def _closing(extras: dict[str, Any]) -> bytes:
    """What closes a message: the extras for the record, and the body of the closing append."""
    packed = pack_value(extras)
    return b"%d %s%s" % (len(packed), packed, _last_chunk(b"", packed))


def _last_chunk(raw: bytes, extras: bytes) -> bytes:
    """The body of an append with extras that are packed already: `pack_append_body`, without packing them again."""
    return b"\x92" + chunk_head(len(raw))[1:] + raw + extras
