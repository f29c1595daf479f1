"""Sessions: publish, change, read. Every write is one script; every read comes from the same entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfhost_transport.errors import (
    BadRequest,
    ContinuityLost,
    InvalidArgument,
    LogRewound,
    MessageTooLarge,
    NotFound,
    ServiceError,
)
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.link import Argument
from selfhost_transport.store.appends import MessageAppend, joined
from selfhost_transport.store.entries import (
    NO_OPERATION,
    Entry,
    MessageOperation,
    Ref,
    Written,
    pack_append_body,
    pack_created,
    pack_replaced_body,
    pack_value,
    type_letter,
    unpack_entry,
)
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.turn_spans import WrittenTo, run_id_of, written_to
from selfhost_transport.turns.headers import read_headers
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, new_epoch

_MAX_RACES = 32
MAX_MESSAGES_PER_PUBLISH = 1000


@dataclass(frozen=True, slots=True)
class Head:
    """Where a session stands. `floor`: everything after this position can still be read from the log."""

    epoch: str
    position: Position
    floor: Position


@dataclass(frozen=True, slots=True)
class Published(Written):
    """An acknowledged write: it is in Redis (P11). `repeated`: it was there already (P5)."""

    repeated: bool = False


class SessionStore:
    """The sessions of one deployment. Raises StoreUnavailable, StoreFull besides what each method names."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, options: StoreOptions | None = None) -> None:
        self.redis = redis
        self.keys = keys
        self.options = options or StoreOptions()
        self.history = HistoryReader(redis, keys)
        self._scripts = SessionScripts(redis, keys)

    async def open(self, session: str) -> Head:
        """Where an attachment starts; gives an unknown session its epoch."""
        # It may run twice: what it makes, it finds.
        epoch, head, floor = await self._scripts.run(
            "open_session", session, retry_s=self.redis.read_s,
            new_epoch=new_epoch(), unused_ms=self.options.unused_session_ms,
        )  # fmt: skip
        return Head(epoch.decode(), Position.parse_id(head.decode()), Position.parse_id(floor.decode()))

    async def exists(self, session: str) -> bool:
        """Whether a session was written to or attached, and has not expired."""
        return bool(await self.redis.command("EXISTS", f"{self.keys.base_of(session)}s:{session}"))

    async def head(self, session: str) -> Position:
        """The position of the newest entry; zero for a session that nothing was written to, or that is gone."""
        head = await self.redis.command("GET", f"{self.keys.base_of(session)}p:{session}")
        return Position.parse_id(head.decode()) if head else Position.ZERO

    async def publish(
        self,
        session: str,
        messages: Sequence[Message],
        *,
        publish_id: str = "",
        groups: Sequence[str] = (),
        ephemeral: bool = False,
    ) -> Published:
        """Append one publish (all of it or nothing). A known `publish_id` returns the first result.

        History pages are not cut inside the turns that the messages are of, by their run ids (ai-transport section 7.7);
        `groups` names more of them.
        Raises InvalidArgument for an empty publish or more than 1,000 messages.
        """
        if not messages:
            raise InvalidArgument("a publish needs at least one message")
        if len(messages) > MAX_MESSAGES_PER_PUBLISH:
            raise BadRequest("too many messages in one publish: the limit is 1000", code=40034)
        turns = [*written_to(messages), *(WrittenTo(turn) for turn in groups)]
        position, epoch, repeated = await self._scripts.run(
            "publish", session, [name for turn in turns for name in turn],
            entry=pack_created(messages, ephemeral=ephemeral), new_epoch=new_epoch(), publish_id=publish_id,
            once_ms=self.options.idempotency_ms, window_ms=self.options.window_ms,
            retention_ms=self.options.retention_of(session),
        )  # fmt: skip
        return Published(Position.parse_id(position.decode()), epoch.decode(), bool(repeated))

    async def append(
        self,
        session: str,
        ref: Ref,
        data: str | bytes | None,
        *,
        encoding: str | None = None,
        extras: dict[str, Any] | None = None,
        name: str | None = None,
        operation: MessageOperation | None = None,
        publish_id: str = "",
    ) -> Position:
        """Concatenate to a message; `extras` and `name` replace when given. Returns the version's position.

        Raises NotFound, MessageTooLarge (the aggregate counts), BadRequest 40013 for another type of data.
        """
        append = MessageAppend(data, encoding, extras, name, operation or NO_OPERATION, publish_id)
        (version,) = await self.append_all(session, ref, [append])
        return version.position

    async def append_all(self, session: str, ref: Ref, appends: Sequence[MessageAppend]) -> list[Ref]:
        """Write appends of one message as one. Returns the version of each: a position, and an index in it.

        Appends that were written before (P5) are left out. Raises what `append` does; then none was written.
        """
        versions: dict[int, Ref] = {}
        waiting = dict(enumerate(appends))
        while waiting:
            reply = await self._append(session, ref, list(waiting.values()))
            if reply[0] == b"repeated":
                found = {at: result for at, result in zip(waiting, reply[1:], strict=True) if result}
                versions |= {at: Ref.parse(result.decode()) for at, result in found.items()}
            else:
                position = _mutated(reply)
                versions |= {at: Ref(position, index) for index, at in enumerate(waiting)}
            waiting = {at: append for at, append in waiting.items() if at not in versions}
        return [versions[at] for at in range(len(appends))]

    async def _append(self, session: str, ref: Ref, appends: Sequence[MessageAppend]) -> Any:
        whole = joined(appends)
        body = pack_append_body("" if whole.data is None else whole.data, whole.extras, whole.operation)
        return await self._mutate(
            session, ref, "A", body, whole.data, whole.encoding, whole.operation,
            [append.publish_id for append in appends],
            extras=pack_value(whole.extras) if whole.extras is not None else b"", name=whole.name or "",
            max_bytes=self.options.max_message_bytes, turn=_turn_of_extras(whole.extras),
        )  # fmt: skip

    async def _mutate(
        self,
        session: str,
        ref: Ref,
        kind: str,
        body: bytes,
        data: str | bytes | None,
        encoding: str | None,
        operation: MessageOperation,
        publish_ids: Sequence[str],
        **given: Argument,
    ) -> Any:
        """`given`: what an append has, or what an update or a delete has."""
        absent: dict[str, Argument] = {
            "extras": b"", "name": "", "max_bytes": 0, "turn": "", "state": b"", "expected_version": ""
        }  # fmt: skip
        return await self._scripts.run(
            "mutate", session, publish_ids, ref=str(ref), kind=kind, body=body,
            once_ms=self.options.idempotency_ms, window_ms=self.options.window_ms,
            data=data.encode() if isinstance(data, str) else (data or b""), letter=type_letter(data),
            encoding=encoding or "", operation=_pack_operation(operation), retry_s=0.0, **{**absent, **given},
        )  # fmt: skip

    async def replace(
        self,
        session: str,
        ref: Ref,
        action: MessageAction,
        change: Message,
        operation: MessageOperation,
        *,
        publish_id: str = "",
    ) -> Position:
        """Update or delete a message: what `change` carries replaces, what it lacks stays (section 7.3).

        Raises NotFound; ServiceError when writers kept racing for the same message.
        """
        for _ in range(_MAX_RACES):
            current = await self.history.state(session, ref)
            merged = _merge(current.message, change, deletes=action is MessageAction.DELETE)
            reply = await self._mutate(
                session, ref, "D" if action is MessageAction.DELETE else "U",
                pack_replaced_body(merged, operation), merged.data, merged.encoding, operation, [publish_id],
                state=pack_value(_state_fields(merged)), expected_version=current.version_id,
            )  # fmt: skip
            if reply[0] != b"stale":
                return _mutated(reply)
        raise ServiceError("the message is being changed concurrently; repeat the update", code=50000)

    async def read_after(
        self, session: str, after: Position, limit: int = 1000, *, epoch: str | None = None
    ) -> list[Entry]:
        """Entries after a position, oldest first, from the live log; at most `limit`.

        With `epoch`, the position is known to be that of an entry of this epoch, or its beginning: then a log that
        does not have it any more has lost what was written last, as a fail-over of Redis may do.
        Raises ContinuityLost (90003) when the log no longer reaches back that far, LogRewound in that case (P7).
        """
        head = await self.open(session)
        if after < head.floor:
            raise ContinuityLost(
                "the position is older than the live log; read the history for the current state"
            )
        rewound = LogRewound(
            "Redis lost the last writes to this session; read the history for the current state"
        )
        if epoch is not None and (epoch != head.epoch or after > head.position):
            raise rewound
        log = self.keys.base_of(session) + "l:" + session
        exact = epoch is not None and after > head.floor
        first = after.stream_id if exact else f"({after.stream_id}"
        found = await self.redis.command("XRANGE", log, first, "+", "COUNT", limit + exact) or []
        entries = [_entry(item) for item in found]
        if exact and not (entries and entries.pop(0).position == after):
            raise rewound
        return entries


def _entry(item: Any) -> Entry:
    return unpack_entry(Position.parse_id(item[0].decode()), item[1][1])


def _turn_of_extras(extras: dict[str, Any] | None) -> str:
    return run_id_of(Message(extras=extras)) or ""


def _pack_operation(operation: MessageOperation) -> bytes:
    packed = operation.pack()
    return pack_value(packed) if packed is not None else b""


def _state_fields(message: Message) -> dict[str, Any]:
    fields = {"name": message.name, "extras": message.extras}
    return {key: value for key, value in fields.items() if value is not None}


def _merge(current: Message, change: Message, *, deletes: bool) -> Message:
    """Section 7.3: `name`, `data` (with its encoding) and `extras` are each replaced if present.

    What says where a message stands in its conversation stays: what was said after it hangs on that.
    """
    has_data = change.data is not None
    extras = change.extras if change.extras is not None else current.extras
    if read_headers(current) is not None and current.extras is not None:
        extras = {"ai": current.extras["ai"], **(extras or {})}
        if deletes:
            extras, change = {**extras, "ai": current.extras["ai"]}, replace(change, name=current.name)
    return Message(
        id=current.id,
        name=change.name if change.name is not None else current.name,
        data=change.data if has_data else current.data,
        encoding=change.encoding if has_data else current.encoding,
        client_id=current.client_id,
        connection_id=current.connection_id,
        extras=extras,
        annotations=current.annotations,
    )


def _mutated(reply: list[Any]) -> Position:
    match reply[0]:
        case b"missing":
            raise NotFound("no such message in this session, or its retention has expired")
        case b"mismatch":
            raise BadRequest("an append must have the type and encoding of the message's data", code=40013)
        case b"too large":
            raise MessageTooLarge(f"the message would grow to {reply[1]} bytes; start a new message")
        case b"repeated":
            return Ref.parse(reply[1].decode()).position
        case position:
            return Position.parse_id(position.decode())
