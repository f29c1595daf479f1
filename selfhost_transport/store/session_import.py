"""Writing another service's history into a session, oldest first, at positions of the past (`import.lua`).

A session keeps how far its import has come. A write to it ends the import: what came later stays the newest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfhost_transport.errors import Conflict
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import (
    NO_OPERATION,
    MessageOperation,
    pack_created,
    pack_value,
    type_letter,
)
from selfhost_transport.store.fields import SessionFields
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.turn_spans import written_to
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, new_epoch

_NOTHING = ""


@dataclass(frozen=True, slots=True)
class ImportedMessage:
    """A message as another service has it. `version`: the position of its last change; None: nothing has changed it."""

    message: Message
    version: Position | None = None
    operation: MessageOperation = NO_OPERATION
    deleted: bool = False

    @property
    def created(self) -> Message:
        """What its create holds: of one that was changed the data stand apart, as they do for those that grew here."""
        if self.version is None:
            return self.message
        return replace(self.message, data=None, encoding=None)

    def change(self, index: int) -> list[str | bytes | int]:
        """What `import.lua` takes of a change; nothing where there was none."""
        if self.version is None:
            return []
        data, operation = self.message.data, self.operation.pack()
        return [
            index,
            "D" if self.deleted else "U",
            type_letter(data),
            self.message.encoding or "",
            data.encode() if isinstance(data, str) else (data or b""),
            pack_value(operation) if operation is not None else b"",
            self.version.stream_id,
        ]


@dataclass(frozen=True, slots=True)
class ImportMark:
    """How far an import has come: the newest message taken has `serial` at the source, and stands at `position` here."""

    position: Position
    source: str
    serial: str

    def pack(self) -> str:
        """As the session keeps it."""
        return f"{self.position.stream_id} {self.serial} {self.source}"

    @classmethod
    def unpack(cls, packed: str) -> ImportMark:
        """The reverse of `pack`."""
        position, serial, source = packed.split(" ", 2)
        return cls(Position.parse_id(position), source, serial)


@dataclass(frozen=True, slots=True)
class ImportState:
    """What a session holds: `mark` of its import, if there was one, and its `epoch` and `head` (ZERO: it is empty)."""

    mark: ImportMark | None
    epoch: str
    head: Position

    @property
    def is_continued(self) -> bool:
        """Whether the session was written to other than by the import."""
        return self.head != (self.mark.position if self.mark is not None else Position.ZERO)


class SessionImports:
    """The imports of one deployment. Raises StoreUnavailable, StoreFull besides what each method names."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, options: StoreOptions) -> None:
        self._redis = redis
        self._keys = keys
        self._options = options
        self._scripts = SessionScripts(redis, keys)

    async def state(self, session: str) -> ImportState:
        """Where a session's import stands."""
        base = self._keys.base_of(session)
        mark, epoch = await self._redis.command(
            "HMGET", f"{base}s:{session}", SessionFields.IMPORTED, SessionFields.EPOCH
        )
        head = await self._redis.command("GET", f"{base}p:{session}")
        return ImportState(
            ImportMark.unpack(mark.decode()) if mark else None,
            epoch.decode() if epoch else "",
            Position.parse_id(head.decode()) if head else Position.ZERO,
        )

    async def write(
        self, session: str, messages: Sequence[ImportedMessage], before: ImportMark | None, after: ImportMark
    ) -> str:
        """Write one publish at the position of `after`, which is later than that of `before`. Returns the epoch.

        Raises Conflict when another import has gone on since `before`, or the session was written to.
        """
        turns = written_to(past.message for past in messages)
        writes: list[str | bytes | int] = [name for turn in turns for name in turn]
        for index, past in enumerate(messages):
            writes += past.change(index)
        reply: list[Any] = await self._scripts.run(
            "import", session, writes, entry=pack_created([past.created for past in messages]),
            new_epoch=new_epoch(), position=after.position.stream_id,
            retention_ms=self._options.retention_of(session),
            stood=before.pack() if before is not None else _NOTHING, stands=after.pack(), turn_count=len(turns),
        )  # fmt: skip
        match reply[0]:
            case b"moved":
                raise Conflict("another import writes to this session; run this one again when it has ended")
            case b"continued":
                raise Conflict(
                    "the session was written to during the import; nothing more can be put before that"
                )
        return str(reply[1].decode())
