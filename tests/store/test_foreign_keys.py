"""A key of ours holds a value of another type: what needs it is refused, and holds up no ending and no other session."""

from __future__ import annotations

import pytest

from selfhost_transport.errors import StoreUnsuitable
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.entries import Created
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.presence import Holder, PresenceStore
from selfhost_transport.store.retention import Retention
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_store import CancelFilter, Scope, TurnStore
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.presence import PresenceMessage
from tests.processes import wait_until
from tests.store.turns import CANCEL, SESSION, chunk, log, names, open_text, request, started, take

OF_TURN = ["t", "m", "x", "g", "h", "l", "p", "open", "leases", "deadlines", "stats", "exporters"]
"""Families whose keys an ending writes to. Without `s` and `a` nothing is known of a session's turns."""


class Neighbour:
    """Writes where it should not."""

    def __init__(self, connection: RedisConnection, keys: Keyspace) -> None:
        self._connection = connection
        self.keys = keys

    async def overwrite(self, family: str, session: str = SESSION) -> str:
        """Put a value of another type into the keys of a family of the session, or of its bucket."""
        base = self.keys.base_of(session)
        pattern = f"{base}{family}:*{session}"
        found: list[str] = [key.decode() for key in await self._connection.command("KEYS", pattern)] or [
            f"{base}{family}"
        ]
        for key in found:
            kind = await self._connection.command("TYPE", key)
            await self._connection.command("DEL", key)
            write = ("RPUSH", key, "foreign") if kind == b"string" else ("SET", key, "foreign")
            await self._connection.command(*write)
        return found[0]

    async def remove(self, key: str) -> None:
        await self._connection.command("DEL", key)

    async def expire_lease(self) -> None:
        name = f"{self.keys.base_of(SESSION)}leases"
        [pair] = await self._connection.command("ZRANGE", name, 0, -1)
        await self._connection.command("ZADD", name, 0, pair)

    async def open_turns(self) -> set[bytes]:
        return set(await self._connection.command("HKEYS", f"{self.keys.base_of(SESSION)}a:{SESSION}"))


@pytest.fixture
def neighbour(connection: RedisConnection, keys: Keyspace) -> Neighbour:
    return Neighbour(connection, keys)


async def speaking(turns: TurnStore) -> None:
    """A turn in mid-answer."""
    lease = await started(turns, max_attempts=1)
    await chunk(turns, lease, await open_text(turns, lease), "some words")


@pytest.mark.parametrize("family", OF_TURN)
async def test_p2_a_cancel_ends_the_turn(
    turns: TurnStore, sessions: SessionStore, neighbour: Neighbour, family: str
) -> None:
    await speaking(turns)
    await neighbour.overwrite(family)
    cancelled = await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)
    assert cancelled.matched == ("t1",)
    assert await neighbour.open_turns() == set()
    if family not in ("h", "l", "p"):
        assert sum(name in ("run-cancelled", "ai-run-end") for name in names(await log(sessions))) == 1


@pytest.mark.parametrize("family", [family for family in OF_TURN if family != "leases"])
async def test_p3_a_lost_turn_ends(turns: TurnStore, neighbour: Neighbour, family: str) -> None:
    await speaking(turns)
    await neighbour.overwrite(family)
    await neighbour.expire_lease()
    reaped = await turns.reap(bucket_of(SESSION, neighbour.keys.buckets))
    assert reaped == ("t1", SESSION, "failed")
    assert await neighbour.open_turns() == set()


@pytest.mark.parametrize("family", ["t", "g", "h", "pace:a", "idle:a"])
async def test_p3_a_turn_that_waits_is_taken_or_ends(
    turns: TurnStore, neighbour: Neighbour, family: str
) -> None:
    await turns.submit(request("t1", max_attempts=2))
    key = await neighbour.overwrite(family)

    async def taken_or_over() -> bool:
        taken = await take(turns) is not None
        await turns.reap(bucket_of(SESSION, neighbour.keys.buckets))
        return taken or not await neighbour.open_turns()

    await wait_until(taken_or_over)
    await neighbour.remove(key)


async def test_a_session_that_is_damaged_does_not_hold_up_the_retention_of_others(
    connection: RedisConnection, redis_prefix: str
) -> None:
    keys, options = Keyspace(redis_prefix, buckets=1), StoreOptions(window_ms=100, retention_of=lambda _: 1)
    sessions, retention = SessionStore(connection, keys, options), Retention(connection, keys, options)
    for session in ("first", "second"):
        await sessions.publish(session, [Message(data="old")])
    await Neighbour(connection, keys).overwrite("h", "first")

    async def second_is_empty() -> bool:
        try:
            await retention.sweep()
        except StoreUnsuitable:
            return False
        return not (await sessions.history.page("second", Query())).messages

    await wait_until(second_is_empty)


async def test_a_session_that_is_damaged_does_not_keep_members_of_others(
    connection: RedisConnection, redis_prefix: str
) -> None:
    keys = Keyspace(redis_prefix, buckets=1)
    store, enter = PresenceStore(connection, keys), PresenceMessage(PresenceAction.ENTER, client_id="ann")
    holders = {
        session: Holder(f"conn-{session}", "socket", "gw", remain_ms=0) for session in ("first", "second")
    }
    for session, holder in holders.items():
        await store.change(session, holder, [enter])
    await Neighbour(connection, keys).overwrite("r", "first")
    for holder in holders.values():
        await store.lost(holder)

    async def second_is_empty() -> bool:
        await store.sweep()
        return await store.count("second") == 0

    await wait_until(second_is_empty)


async def test_what_is_damaged_is_refused_for_good(sessions: SessionStore, neighbour: Neighbour) -> None:
    await sessions.publish(SESSION, [Message(data="one")])
    key = await neighbour.overwrite("h")
    with pytest.raises(StoreUnsuitable):
        await sessions.publish(SESSION, [Message(data="two")])
    await neighbour.remove(key)
    await sessions.publish(SESSION, [Message(data="three")])
    assert any(isinstance(entry, Created) for entry in await log(sessions))
