"""Presence members of a session (protocol section 8). Every change is one script.

A member is a (connection, client id) pair. A connection's members are held by a socket of a process (a node);
a lost socket, or a node whose lease expired, gives them a deadline, and the first sweep after it removes them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from selfhost_transport.errors import BadRequest, InvalidArgument
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.link import Argument
from selfhost_transport.store import scripts
from selfhost_transport.store.duties import Duties
from selfhost_transport.store.entries import (
    PresenceChanged,
    Ref,
    pack_extras,
    pack_member,
    unpack_entry,
    unpack_member,
)
from selfhost_transport.store.held_buckets import FEW_BUCKETS, HeldBuckets
from selfhost_transport.store.history import Query, beyond, bounds
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.names import pair, split_pair
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.codes import Code
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position, new_epoch

DEFAULT_REMAIN_MS = 15_000
"""How long members outlive the socket that entered them (`remainPresentFor`, section 8.5)."""
MIN_REMAIN_MS = 1_000

LEAVES_PER_STEP = 100
"""Members that one script takes out at most, so that it stays within a few milliseconds (P9)."""

_CHANGES = frozenset({PresenceAction.ENTER, PresenceAction.LEAVE, PresenceAction.UPDATE})
_NAME = re.compile(r"[^\s:]{0,128}")
_PRESENCE_ID = re.compile(r"[^\s]{0,512}")


@dataclass(frozen=True, slots=True)
class Holder:
    """The socket that answers for a connection's members.

    `owner` is unique to the socket; `node` names its process, '' for one without a lease. After the loss of
    either, members stay for `remain_ms`.
    """

    connection_id: str
    owner: str
    node: str
    remain_ms: int = DEFAULT_REMAIN_MS

    def __post_init__(self) -> None:
        if not all(_NAME.fullmatch(name) for name in (self.connection_id, self.node)):
            raise InvalidArgument("a connection id or node has no whitespace, no `:`, at most 128 characters")


NO_HOLDER = Holder("", "", "", 0)
"""Holder of members that belong to no connection: they never time out."""


@dataclass(frozen=True, slots=True)
class PresenceWritten:
    """Answer to presence operations. `changes` 0: nothing to announce, so `position` is that of nothing or a repeat."""

    position: Position | None
    epoch: str
    changes: int


@dataclass(slots=True)
class PresencePage:
    """Presence events in the order asked for; `next_cursor` is None on the last page."""

    events: list[PresenceMessage] = field(default_factory=list)
    next_cursor: Ref | None = None


class PresenceStore:
    """Presence of one deployment's sessions. Raises StoreUnavailable, StoreFull besides what each method names."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, options: StoreOptions | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._options = options or StoreOptions()
        self._scripts = SessionScripts(redis, keys)
        self._duties = Duties(redis, keys)
        self._held = HeldBuckets(redis, keys)
        # Where this process has, or may have, a lease.
        self._used = set(keys.bases() if keys.buckets <= FEW_BUCKETS else ())

    async def change(
        self,
        session: str,
        holder: Holder,
        operations: Sequence[PresenceMessage],
        *,
        publish_id: str = "",
    ) -> PresenceWritten:
        """Enter, update or leave: the operations of one frame, all or none, announced as one entry.

        Each operation has a client id; its connection is the holder's. An id equal to the member's changes nothing
        (re-entry), a leave without data carries the last data, a known `publish_id` is not applied again.
        Raises InvalidArgument for other actions, BadRequest 91000 without a client id, 91003 with too many members.
        """
        arguments: list[str | bytes | int] = []
        for operation in operations:
            arguments += _arguments(operation, holder.connection_id)
        if not arguments:
            raise InvalidArgument("a presence frame needs at least one operation")
        options = self._options
        await self._held.note(holder.connection_id, session)
        if holder.node:
            # The script gives the process its lease.
            self._used.add(self._keys.base_of(session))
        reply = await self._scripts.run(
            "presence_change", session, arguments, new_epoch=new_epoch(),
            window_ms=options.window_ms, publish_id=publish_id, once_ms=options.idempotency_ms,
            connection=holder.connection_id, owner=holder.owner, node=holder.node,
            remain_ms=holder.remain_ms, kept=options.presence_events, members=options.max_members,
            lease_ms=options.presence_lease_ms,
        )  # fmt: skip
        if reply[0] == b"full":
            raise BadRequest(
                f"the session has {reply[1]} members, and at most {options.max_members} are allowed",
                code=Code.PRESENCE_TOO_MANY_MEMBERS,
            )
        position = Position.parse_id(reply[0].decode()) if reply[0] else None
        return PresenceWritten(position, reply[1].decode(), reply[2])

    async def leave(self, session: str, connection_id: str) -> int:
        """Take all members of a connection out of one session, with their last data (DETACH). Returns how many."""
        return await self._leave(self._keys.base_of(session), session, connection_id, "")

    async def leave_all(self, holder: Holder) -> int:
        """Take all members of a connection out of every session (CLOSE), unless another socket holds them."""
        connection = holder.connection_id
        bases = await self._held.bases_of(connection)
        counts = [self._leave(base, "", connection, holder.owner) for base in bases]
        left = sum(await asyncio.gather(*counts))
        self._held.forget(connection)
        return left

    async def lost(self, holder: Holder) -> bool:
        """A socket ended without CLOSE: its members leave after `remain_ms`, unless another socket holds them.

        Call it after the socket's last change was given to the store. Returns whether any member is due.
        """
        bases = await self._held.bases_of(holder.connection_id)
        due = await self._of_connection("presence_lost", bases, holder.connection_id, owner=holder.owner)
        self._held.forget(holder.connection_id)
        return due

    async def claim(self, holder: Holder) -> bool:
        """A socket resumed a connection: it holds the members now, and no leave is due. Returns whether it has any."""
        bases = await self._held.bases_of(holder.connection_id)
        new = [base for base in bases if holder.node and base not in self._used]
        self._used.update(new)
        await self._set_lease(holder.node, self._options.presence_lease_ms, new)
        return await self._of_connection(
            "presence_claim", bases, holder.connection_id, owner=holder.owner, node=holder.node,
            remain_ms=holder.remain_ms,
        )  # fmt: skip

    async def use(self, session: str, node: str) -> None:
        """A process contributes to a session: it has a lease in its bucket from now on."""
        base = self._keys.base_of(session)
        if node and base not in self._used:
            self._used.add(base)
            await self._set_lease(node, self._options.presence_lease_ms, [base])

    async def renew(self, node: str) -> bool:
        """Renew a process' lease in the buckets that it uses; due every third of `presence_lease_ms`.

        False: the process is new, or was taken for dead; then it has to claim each of its connections again.
        """
        await self._held.keep()
        return all(await self._set_lease(node, self._options.presence_lease_ms, sorted(self._used)))

    async def retire(self, node: str) -> None:
        """Give the lease of a process up: what it still holds may be resumed elsewhere, or leaves in time."""
        await self._set_lease(node, 0, sorted(self._used))

    async def sweep(self) -> int:
        """Take out every member whose time has come, in all buckets; any process may. Returns how many left."""
        bases = self._keys.bases()
        if self._keys.buckets > FEW_BUCKETS:
            bases = await self._due()
        return sum(await asyncio.gather(*(self._sweep(base) for base in bases)))

    async def sweep_for_all(self, period_ms: int) -> int:
        """The same, unless another process has done it within the period."""
        if self._keys.buckets > FEW_BUCKETS and not await self._duties.falls_to_me("presence", period_ms):
            return 0
        return await self.sweep()

    async def _due(self) -> list[str]:
        """Buckets where a process is dead, or members have to leave."""
        seconds, micros = await self._redis.command("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        found = await asyncio.gather(*(self._duties.buckets_due(name, now_ms) for name in ("nodes", "gone")))
        return [self._keys.base(bucket) for bucket in sorted({*found[0], *found[1]})]

    async def count(self, session: str) -> int:
        """How many members a session has."""
        size: int = await self._redis.command("HLEN", self._roster(session))
        return size

    async def members(
        self, session: str, *, client_id: str | None = None, connection_id: str | None = None
    ) -> list[PresenceMessage]:
        """The members, as `present`, ordered by connection and client id; a snapshot of one moment.

        With both filters it reads one member, else all of them.
        """
        roster = self._roster(session)
        if client_id is not None and connection_id is not None:
            field_name = pair(connection_id, client_id).encode()
            record = await self._redis.command("HGET", roster, field_name)
            return [_member(field_name, record)[1]] if record else []
        flat = await self._redis.command("HGETALL", roster)
        found = sorted(_member(flat[at], flat[at + 1]) for at in range(0, len(flat), 2))
        return [
            member
            for (connection, client), member in found
            if client_id in (None, client) and connection_id in (None, connection)
        ]

    async def history(self, session: str, query: Query) -> PresencePage:
        """One page of presence events, in their original actions."""
        low, high = bounds(query)
        key = f"{self._keys.base_of(session)}k:{session}"
        events: list[tuple[Ref, PresenceMessage]] = []
        while len(events) <= query.limit:
            wanted = query.limit + 1 - len(events) + 1
            span = ("XRANGE", key, low, high) if query.forwards else ("XREVRANGE", key, high, low)
            found = await self._redis.command(*span, "COUNT", wanted)
            for item in found or []:
                events += [event for event in _events(item, query) if beyond(event[0], query)]
            if not found or len(found) < wanted:
                break
            last = found[-1][0].decode()
            low, high = (f"({last}", high) if query.forwards else (low, f"({last}")
        chosen = events[: query.limit]
        more = len(events) > query.limit
        return PresencePage([event for _, event in chosen], chosen[-1][0] if more and chosen else None)

    def _roster(self, session: str) -> str:
        return f"{self._keys.base_of(session)}r:{session}"

    async def _leave(self, base: str, session: str, connection_id: str, owner: str) -> int:
        options = self._options
        call = scripts.call(
            "presence_leave", holder=f"{base}o:{connection_id}", base=base, named_session=session,
            connection=connection_id, owner=owner, limit=LEAVES_PER_STEP, kept=options.presence_events,
            window_ms=options.window_ms,
        )  # fmt: skip
        total = 0
        while left := await self._redis.call(*call):
            total += left
        return total

    async def _of_connection(
        self, name: str, bases: Sequence[str], connection_id: str, **named: Argument
    ) -> bool:
        """Run a script about one connection in some buckets; all leave in one write."""
        calls = [
            self._redis.call(
                *scripts.call(
                    name,
                    (),
                    (),
                    holder=f"{base}o:{connection_id}",
                    base=base,
                    connection=connection_id,
                    **named,
                )
            )
            for base in bases
        ]
        return any(await asyncio.gather(*calls))

    async def _set_lease(self, node: str, lease_ms: int, bases: Sequence[str]) -> list[bool]:
        calls = [
            self._redis.call(
                *scripts.call("presence_renew", nodes=f"{base}nodes", node=node, lease_ms=lease_ms)
            )
            for base in bases
        ]
        return [bool(reply) for reply in await asyncio.gather(*calls)]

    async def _sweep(self, base: str) -> int:
        options = self._options
        orphan = scripts.call("presence_orphan", nodes=f"{base}nodes", base=base, limit=LEAVES_PER_STEP)
        while await self._redis.call(*orphan) is not None:
            pass
        sweep = scripts.call(
            "presence_sweep", gone=f"{base}gone", base=base, limit=LEAVES_PER_STEP,
            kept=options.presence_events, window_ms=options.window_ms,
        )  # fmt: skip
        total = 0
        while (left := await self._redis.call(*sweep)) is not None:
            total += left
        return total


def _arguments(operation: PresenceMessage, connection_id: str) -> tuple[str | bytes | int, ...]:
    """What presence_change.lua takes for one operation."""
    action, client_id, presence_id = operation.action, operation.client_id, operation.id or ""
    if action not in _CHANGES:
        raise InvalidArgument("a client may enter, update or leave")
    if not client_id:
        raise BadRequest("presence needs a client id", code=Code.PRESENCE_NO_CLIENT_ID)
    if _PRESENCE_ID.fullmatch(presence_id) is None:
        raise BadRequest("a presence id has no whitespace and at most 512 characters", code=40031)
    member = pack_member(operation, connection_id)
    if action is PresenceAction.LEAVE and operation.data is None:
        member = b"" if operation.extras is None else pack_extras(operation.extras)
    return int(action), client_id, presence_id, member


def _member(field_name: bytes, record: bytes) -> tuple[tuple[str, str], PresenceMessage]:
    """A field of the roster: the member's identity, and the member with the id and time of its last change."""
    connection, client = split_pair(field_name.decode())
    head, _, fields = record.partition(b"\n")
    position, _, presence_id = head.decode().partition(" ")
    ms = Position.parse_id(position).ms
    return (connection, client), unpack_member(PresenceAction.PRESENT, presence_id or None, ms, fields)


def _events(item: Any, query: Query) -> list[tuple[Ref, PresenceMessage]]:
    position = Position.parse_id(item[0].decode())
    entry = unpack_entry(position, item[1][1])
    if not isinstance(entry, PresenceChanged):
        return []
    events = [(Ref(position, index), event) for index, event in enumerate(entry.presence)]
    return events if query.forwards else events[::-1]
