"""Presence members of a deployment of many buckets: only those of a connection are asked about it, on a real Redis."""

from __future__ import annotations

import pytest

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import held_buckets
from selfhost_transport.store.held_buckets import FEW_BUCKETS, HeldBuckets
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.presence import Holder, PresenceStore
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.presence import PresenceMessage

MANY = 1000
SESSIONS = [f"room:{number}" for number in range(5)]
HOLDER = Holder("conn", "socket", "gw-1", remain_ms=0)


@pytest.fixture
def many(redis_prefix: str) -> Keyspace:
    return Keyspace(redis_prefix, buckets=MANY)


async def test_few_buckets_are_all_asked_and_not_remembered(
    connection: RedisConnection, redis_prefix: str
) -> None:
    keys = Keyspace(redis_prefix, buckets=FEW_BUCKETS)
    held = HeldBuckets(connection, keys)
    await held.note("conn", "room")
    assert await held.bases_of("conn") == keys.bases()
    assert await connection.command("EXISTS", f"{keys.prefix}:held:conn") == 0


async def test_another_process_finds_the_buckets_of_a_connection(
    connection: RedisConnection, many: Keyspace
) -> None:
    noted = HeldBuckets(connection, many)
    for session in SESSIONS:
        await noted.note("conn", session)
    await noted.note("", "of-no-connection")
    expected = {many.base_of(session) for session in SESSIONS}
    assert set(await HeldBuckets(connection, many).bases_of("conn")) == expected
    assert await HeldBuckets(connection, many).bases_of("other") == []
    assert 0 < await connection.command("PTTL", f"{many.prefix}:held:conn") <= 24 * 3_600_000


async def test_a_bucket_is_written_once(
    connection: RedisConnection, many: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldBuckets(connection, many)
    await held.note("conn", "room")
    key = f"{many.prefix}:held:conn"
    await connection.command("DEL", key)
    await held.note("conn", "room")
    assert await connection.command("EXISTS", key) == 0, "it is known"
    held.forget("conn")
    await held.note("conn", "room")
    assert await connection.command("HKEYS", key) == [str(bucket_of("room", MANY)).encode()]


async def test_no_more_connections_are_remembered_than_a_number(
    connection: RedisConnection, many: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_buckets, "_MOST_KNOWN", 2)
    held = HeldBuckets(connection, many)
    for name in ("one", "two", "three"):
        await held.note(name, "room")
    await connection.command("DEL", *(f"{many.prefix}:held:{name}" for name in ("one", "two", "three")))
    for name in ("two", "three", "one"):
        await held.note(name, "room")
    written = [
        await connection.command("EXISTS", f"{many.prefix}:held:{name}") for name in ("one", "two", "three")
    ]
    assert written == [1, 0, 0], "the one that was noted first was forgotten, and is written again"


async def test_what_a_process_answers_for_lives_on(
    connection: RedisConnection, many: Keyspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldBuckets(connection, many)
    await held.note("conn", "room")
    key = f"{many.prefix}:held:conn"
    await connection.command("PEXPIRE", key, 60_000)
    await held.keep()
    assert await connection.command("PTTL", key) <= 60_000, "not so soon again"
    held._refresh_at = 0.0
    await held.keep()
    assert await connection.command("PTTL", key) > 60_000


async def test_members_in_many_buckets_leave_with_their_connection(
    connection: RedisConnection, many: Keyspace
) -> None:
    presence = PresenceStore(connection, many)
    await presence.renew("gw-1")
    for number, session in enumerate(SESSIONS):
        entered = PresenceMessage(PresenceAction.ENTER, f"conn:{number}:0", "ann")
        await presence.use(session, "gw-1")
        await presence.change(session, HOLDER, [entered])
    assert [await presence.count(session) for session in SESSIONS] == [1] * len(SESSIONS)
    # By another process, which has noted nothing itself.
    assert await PresenceStore(connection, many).leave_all(HOLDER) == len(SESSIONS)
    assert [await presence.count(session) for session in SESSIONS] == [0] * len(SESSIONS)
