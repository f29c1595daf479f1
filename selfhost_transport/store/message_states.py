"""Messages as they are now: what was created, with what its record says has changed since (section 7.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.entries import (
    Created,
    MessageOperation,
    Ref,
    unpack,
    unpack_entry,
    unpack_summary,
)
from selfhost_transport.store.fields import MessageFields as Record
from selfhost_transport.store.fields import SessionFields
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.turn_spans import TurnSpans
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.serial import Position
from selfhost_transport.wire.sizes import data_size
from selfhost_transport.wire.summary import summary_to_wire

RECORDS_PER_CALL = 100
"""Messages whose records are read by one script: it stays within a millisecond (P9)."""

_NO_RECORD: dict[str, bytes] = {}
_RECORD_FIELDS = tuple(Record)


class MessageStates:
    """The newest states of messages that were found in the history. `spans`: which turns retention has taken."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, spans: TurnSpans) -> None:
        self._redis = redis
        self._keys = keys
        self._spans = spans

    async def epoch(self, session: str) -> str:
        """The session's epoch; '' where there is no such session."""
        base = self._keys.base_of(session)
        epoch = await self._redis.command("HGET", f"{base}s:{session}", SessionFields.EPOCH)
        return epoch.decode() if epoch else ""

    async def created(self, session: str, ref: Ref) -> Message | None:
        """A message as it was created; None where the history does not have it (any more)."""
        at = ref.position.stream_id
        found = await self._redis.command("XRANGE", f"{self._keys.base_of(session)}h:{session}", at, at)
        for item in found or []:
            entry = unpack_entry(ref.position, item[1][1])
            if isinstance(entry, Created) and ref.index < len(entry.messages):
                return entry.messages[ref.index]
        return None

    async def records(
        self, session: str, refs: Sequence[Ref]
    ) -> tuple[str, int, list[tuple[dict[str, bytes], bytes | None, Position]]]:
        """Epoch, up to when retention has taken turns, and for each ref: record, data, head.

        Records are read in one step for each so many messages. What retention took meanwhile lies before that time.
        """
        base = self._keys.base_of(session)
        calls = [
            self._redis.call(
                *scripts.call(
                    "read_records", _RECORD_FIELDS,
                    list(_record_keys(base, session, refs[start : start + RECORDS_PER_CALL])),
                    head=f"{base}p:{session}",
                )
            )
            for start in range(0, len(refs), RECORDS_PER_CALL)
        ]  # fmt: skip
        # Read after all the records.
        meta = self._redis.command("HMGET", f"{base}s:{session}", SessionFields.EPOCH, SessionFields.CUT)
        records: list[tuple[dict[str, bytes], bytes | None, Position]] = []
        for call in calls:
            head, *found = await call
            position = Position.parse_id(head.decode()) if head else Position.ZERO
            for fields in found:
                if fields is None:
                    records.append((_NO_RECORD, None, position))
                else:
                    pairs = zip(_RECORD_FIELDS, fields[1:], strict=True)
                    record: dict[str, bytes] = {name: value for name, value in pairs if value is not None}
                    records.append((record, fields[0], position))
        epoch, cut = await meta
        return (epoch.decode() if epoch else ""), int(cut or 0), records

    async def kept(self, session: str, created: Sequence[tuple[Ref, Message]]) -> list[Message]:
        """The newest versions, without those that retention has taken."""
        messages, cut_ms = await self.newest(session, created)
        return await self.without_taken(session, [message for _, message in created], messages, cut_ms)

    async def newest(self, session: str, created: Sequence[tuple[Ref, Message]]) -> tuple[list[Message], int]:
        """The newest versions, and up to when retention has taken turns: what lies before may be incomplete."""
        if not created:
            return [], 0
        epoch, cut_ms, records = await self.records(session, [ref for ref, _ in created])
        messages: list[Message] = []
        for start in range(0, len(created), RECORDS_PER_CALL):
            if start:
                await asyncio.sleep(0)  # lets others run
            part = slice(start, start + RECORDS_PER_CALL)
            messages += [
                _current(message, ref, epoch, *record)
                for (ref, message), record in zip(created[part], records[part], strict=True)
            ]
        return messages, cut_ms

    async def cut_ms(self, session: str) -> int:
        """Up to when retention has taken turns."""
        return int(
            await self._redis.command("HGET", f"{self._keys.base_of(session)}s:{session}", SessionFields.CUT)
            or 0
        )

    async def without_taken(
        self, session: str, created: Sequence[Message], messages: list[Message], cut_ms: int
    ) -> list[Message]:
        """The messages whose turns retention has left; `created`: the same ones as they were created."""
        while old := [at for at, message in enumerate(messages) if (message.timestamp or 0) < cut_ms]:
            taken = await self._spans.taken(session, [created[at] for at in old], cut_ms)
            # A turn that was taken meanwhile has no span any more, also for its messages that are not old yet.
            before, cut_ms = cut_ms, await self.cut_ms(session)
            if cut_ms <= before:
                gone = {at for at, is_taken in zip(old, taken, strict=True) if is_taken}
                return [message for at, message in enumerate(messages) if at not in gone]
        return messages

    async def newest_within(
        self, session: str, created: Sequence[tuple[Ref, Message]], most_bytes: int
    ) -> list[Message] | None:
        """None when the data have more bytes than that; little more is read then."""
        messages: list[Message] = []
        for start in range(0, len(created), RECORDS_PER_CALL):
            messages += (await self.newest(session, created[start : start + RECORDS_PER_CALL]))[0]
            if sum(data_size(message.data) for message in messages) > most_bytes:
                return None
        return messages


def _record_keys(base: str, session: str, refs: Sequence[Ref]) -> Iterator[str]:
    for ref in refs:
        yield f"{base}m:{ref}:{session}"
        yield f"{base}x:{ref}:{session}"


def completed(created: Created, epoch: str) -> list[Message]:
    """The wire messages of a publish that nothing has changed since."""
    position = created.position
    refs = ((Ref(position, index), message) for index, message in enumerate(created.messages))
    return [_current(message, ref, epoch, {}, None, position) for ref, message in refs]


def overlaid(created: Message, record: dict[str, bytes], data: bytes | None) -> Message:
    """The create overlaid with what the record changed."""
    if Record.SUMMARY in record:
        summary = summary_to_wire(unpack_summary(unpack(record[Record.SUMMARY])))
        created = replace(created, annotations={"summary": summary})
    if Record.TYPE not in record:
        return created
    state: dict[str, Any] = (
        unpack(record[Record.STATE])
        if Record.STATE in record
        else {"name": created.name, "extras": created.extras}
    )
    letter = record.get(Record.TYPE, b"-")
    value: str | bytes | None = None
    if letter == b"s":
        value = (data or b"").decode(errors="replace")
    elif letter == b"b":
        value = data or b""
    return replace(
        created,
        name=record[Record.NAME].decode() if Record.NAME in record else state.get("name"),
        extras=unpack(record[Record.EXTRAS]) if Record.EXTRAS in record else state.get("extras"),
        data=value,
        encoding=(record.get(Record.ENCODING) or b"").decode() or None,
    )


def _current(
    created: Message, ref: Ref, epoch: str, record: dict[str, bytes], data: bytes | None, head: Position
) -> Message:
    """A complete wire message. While its turn streams, a message's version is the head it was read at:
    not older than any append it contains, older than every later one."""
    if Record.TYPE not in record:
        version = Version(ref.serial(epoch), ref.position.ms)
        return complete(overlaid(created, record, data), ref, epoch, MessageAction.CREATE, version)
    changed = record.get(Record.VERSION) or b""
    position = Position.parse_id(changed.decode()) if changed else max(head, ref.position)
    packed = record.get(Record.OPERATION) or b""
    operation = (
        MessageOperation.unpack(unpack(packed)) if packed else MessageOperation(client_id=created.client_id)
    )
    action = MessageAction.DELETE if record.get(Record.ACTION) == b"D" else MessageAction.UPDATE
    version = operation.version(position, epoch)
    return complete(overlaid(created, record, data), ref, epoch, action, version)


def complete(message: Message, ref: Ref, epoch: str, action: MessageAction, version: Version) -> Message:
    """A wire message: the state, with serial, time, action and version."""
    serial = ref.serial(epoch)
    return replace(
        message,
        id=message.id or serial,
        serial=serial,
        timestamp=ref.position.ms,
        action=action,
        version=version,
    )
