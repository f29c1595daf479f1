"""Annotations of messages: added, taken back, listed; their summaries are part of the messages (section 14.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from selfhost_transport.errors import BadRequest, NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Annotated, Ref, pack_annotation_body, unpack_entry
from selfhost_transport.store.fields import SessionFields
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.wire.actions import AnnotationAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.serial import Position, format_item
from selfhost_transport.wire.summary import method_of

MAX_LISTED: Final = 200
"""Clients that a summary lists by name; beyond, it is clipped."""
MAX_NAMES: Final = 100
"""Names under which a message can have annotations of one type."""


@dataclass(frozen=True, slots=True)
class Given:
    """Annotations that are written (P11), with a position for each."""

    positions: tuple[Position, ...]
    epoch: str

    @property
    def serials(self) -> list[str]:
        """The annotations' serials."""
        return [format_item(position, self.epoch, 0) for position in self.positions]


class AnnotationStore:
    """The annotations of one deployment. Raises StoreUnavailable, StoreFull besides what each method names."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, options: StoreOptions | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._options = options or StoreOptions()
        self._scripts = SessionScripts(redis, keys)

    async def give(
        self, session: str, annotations: Sequence[tuple[Ref, Annotation]], *, publish_id: str = ""
    ) -> Given:
        """Add annotations, or take the caller's own back, in order: all or none. At least one.

        They have their verified client ids. Nothing to take back is no error. Raises NotFound, BadRequest 40000 for a
        name too many.
        """
        options = self._options
        arguments = [argument for ref, one in annotations for argument in _arguments(ref, one)]
        reply = await self._scripts.run(
            "annotate", session, arguments, publish_id=publish_id,
            once_ms=options.idempotency_ms, window_ms=options.window_ms, listed=MAX_LISTED, names=MAX_NAMES,
            kept=options.annotations,
        )  # fmt: skip
        if reply[0] == b"missing":
            raise NotFound("no such message in this session, or its retention has expired")
        if reply[0] == b"full":
            raise BadRequest(f"a message has annotations of a type under at most {MAX_NAMES} names")
        positions = tuple(Position.parse_id(position.decode()) for position in reply[1:])
        return Given(positions, reply[0].decode())

    async def page(
        self, session: str, ref: Ref, *, after: Position = Position.ZERO, limit: int = 100
    ) -> list[Annotation]:
        """Annotations of a message in the order they were given, complete; none for an unknown message."""
        base = self._keys.base_of(session)
        epoch = await self._redis.command("HGET", f"{base}s:{session}", SessionFields.EPOCH)
        key = f"{base}b:{ref}:{session}"
        found = await self._redis.command("XRANGE", key, f"({after.stream_id}", "+", "COUNT", limit)
        entries = [unpack_entry(Position.parse_id(item[0].decode()), item[1][1]) for item in found or []]
        named = epoch.decode() if epoch else ""
        return [complete(entry, named) for entry in entries if isinstance(entry, Annotated)]


def _arguments(ref: Ref, annotation: Annotation) -> list[str | int | bytes]:
    """One annotation as the script takes it."""
    method = method_of(annotation.type)
    return [
        str(ref),
        int(annotation.action or AnnotationAction.CREATE),
        annotation.type or "",
        method,
        (annotation.name or "") if method.has_names else "",
        annotation.client_id or "",
        1 if annotation.count is None else annotation.count,
        pack_annotation_body(annotation),
    ]


def complete(entry: Annotated, epoch: str) -> Annotation:
    """An annotation as it is delivered: with its own serial and its message's."""
    serial = format_item(entry.position, epoch, 0)
    return replace(
        entry.annotation,
        id=entry.annotation.id or serial,
        serial=serial,
        message_serial=entry.ref.serial(epoch),
    )
