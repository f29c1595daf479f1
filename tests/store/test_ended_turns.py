"""Turns that ended, queued for exporters, on a real Redis (HYD-7)."""

from __future__ import annotations

import asyncio

import pytest

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.exporter import EndedTurn, TurnExporter
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import load_settings
from selfhost_transport.store.ended_turns import Ended, EndedTurns, LeasedElsewhere
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.turn_store import CancelFilter, Scope, TurnStore
from selfhost_transport.turns.status import TurnStatus
from tests.processes import wait_until
from tests.store.turns import CANCEL, SESSION, finish, request, started

LEASE_MS = 60_000


@pytest.fixture
def queue(connection: RedisConnection, keys: Keyspace) -> EndedTurns:
    return EndedTurns(connection, keys, "db")


async def taken(queue: EndedTurns, keys: Keyspace, lease_ms: int = LEASE_MS) -> Ended | None:
    found = await queue.take(bucket_of(SESSION, keys.buckets), lease_ms)
    return None if isinstance(found, LeasedElsewhere) else found


async def test_every_ended_turn_is_given_out_once(
    turns: TurnStore, queue: EndedTurns, connection: RedisConnection, keys: Keyspace
) -> None:
    await finish(turns, await started(turns, "before"))
    await queue.open(limit=100)
    lease = await started(turns, "t1")
    last = await finish(turns, lease)
    accepted = await turns.submit(request("t2"))
    cancelled = await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t2"), CANCEL)
    first = await taken(queue, keys)
    assert first is not None and await taken(EndedTurns(connection, keys, "db"), keys) is None
    await queue.done(first)
    second = await taken(queue, keys)
    assert second is not None
    assert (first.turn_id, first.status, first.last, first.owner) == (
        "t1",
        TurnStatus.COMPLETED,
        last,
        "alice",
    )
    assert (first.first, first.agent, first.epoch) == (lease.input_position, "a", lease.epoch)
    assert (second.turn_id, second.status, second.first) == ("t2", TurnStatus.CANCELLED, accepted.position)
    assert second.last > cancelled.position
    assert await queue.waiting() == 1
    await queue.done(second)
    assert await taken(queue, keys) is None


async def test_what_is_not_exported_in_time_is_given_out_again(
    turns: TurnStore, queue: EndedTurns, connection: RedisConnection, keys: Keyspace
) -> None:
    other = EndedTurns(connection, keys, "db")
    await queue.open(limit=100)
    await finish(turns, await started(turns))
    first = await taken(queue, keys)
    assert first is not None and await queue.renew(first) and await taken(other, keys) is None
    left = await other.take(bucket_of(SESSION, keys.buckets), LEASE_MS)
    assert isinstance(left, LeasedElsewhere) and LEASE_MS - 10_000 < left.left_ms <= LEASE_MS
    again = await wait_until(lambda: taken(other, keys, lease_ms=20), what="the lease to run out")
    assert again is not None
    assert (again.item_id, first.delivery, again.delivery) == (first.item_id, 1, 2)
    assert await other.renew(again) and not await queue.renew(first)
    assert await taken(queue, keys) is None
    # The answer was lost on its way to the same process: no need to wait.
    repeated = await taken(other, keys)
    assert repeated is not None and (repeated.item_id, repeated.delivery) == (first.item_id, 3)
    await other.done(repeated)
    assert await taken(queue, keys, lease_ms=0) is None and await queue.waiting() == 0


async def test_what_a_process_that_died_had_is_exported_when_its_lease_ends(
    connection: RedisConnection, redis_url: str, redis_prefix: str
) -> None:
    """At once: not when an exporter looks at all buckets the next time, in 15 s."""
    keys = Keyspace(redis_prefix)
    turns, queue = TurnStore(connection, keys), EndedTurns(connection, keys, "db")
    await queue.open(limit=100)
    await finish(turns, await started(turns))
    assert await taken(queue, keys) is not None
    settings = load_settings(redis=redis_url, redis_prefix=redis_prefix)
    exporter = TurnExporter(settings, name="db", lease_s=0.3)
    exported = asyncio.Event()

    async def export(turn: EndedTurn) -> None:
        exported.set()

    running = asyncio.create_task(exporter.run(export))
    try:
        async with asyncio.timeout(8):
            await exported.wait()
    finally:
        exporter.stop()
        await running


async def test_each_exporter_gets_every_turn(
    turns: TurnStore, queue: EndedTurns, connection: RedisConnection, keys: Keyspace
) -> None:
    other = EndedTurns(connection, keys, "search")
    await queue.open(limit=100)
    await other.open(limit=100)
    await finish(turns, await started(turns))
    for exporter in (queue, other):
        ended = await taken(exporter, keys)
        assert ended is not None
        await exporter.done(ended)
    assert await other.forget() and not await other.forget()
    await finish(turns, await started(turns, "t2"))
    assert (await queue.waiting(), await other.waiting()) == (1, 0)


async def test_beyond_the_limit_the_oldest_are_dropped_and_counted(
    turns: TurnStore, queue: EndedTurns, keys: Keyspace
) -> None:
    await queue.open(limit=2)
    await finish(turns, await started(turns, "t0"))
    held = await taken(queue, keys)
    assert held is not None
    for number in (1, 2, 3):
        await finish(turns, await started(turns, f"t{number}"))
    assert (await queue.waiting(), await queue.dropped()) == (2, 2)
    # One that was dropped while someone had it is not waited for.
    found = [await taken(queue, keys, lease_ms=0)]
    await queue.done(held)
    assert found[0] is not None and found[0].turn_id == "t2"
    await queue.done(found[0])
    ended = await taken(queue, keys)
    assert ended is not None and ended.turn_id == "t3"


async def test_a_name_is_plain(connection: RedisConnection, keys: Keyspace) -> None:
    for name in ("", "a b", "a:b", "x" * 65):
        with pytest.raises(InvalidArgument):
            EndedTurns(connection, keys, name)
