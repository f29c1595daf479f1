"""What a deployment has done and has to do, added up over its buckets, on a real Redis (OPS-1)."""

from __future__ import annotations

import asyncio

import pytest

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.statistics import read_statistics
from selfhost_transport.store.turn_store import CancelFilter, Scope, TurnStore
from tests.store.turns import CANCEL, request

SESSIONS = [f"room:{number}" for number in range(6)]


async def take(turns: TurnStore, session: str, lease_ms: int = 10_000) -> None:
    lease = await turns.take(bucket_of(session, turns.keys.buckets), "a", "w1", lease_ms)
    assert lease is not None


async def test_terminals_queues_and_lost_leases_of_all_buckets_are_counted(
    turns: TurnStore, connection: RedisConnection, keys: Keyspace
) -> None:
    assert len({keys.base_of(session) for session in SESSIONS}) > 1
    for session in SESSIONS:
        await turns.submit(request("t1", session=session))
    await turns.submit(request("t2", session=SESSIONS[0], agent="b"))
    for session in SESSIONS[:2]:
        await turns.cancels.cancel(session, CancelFilter(Scope.TURN, "t1"), CANCEL)
    await take(turns, SESSIONS[2], lease_ms=1)
    bucket = bucket_of(SESSIONS[2], keys.buckets)
    async with asyncio.timeout(5):
        while await turns.reap(bucket) is None:
            await asyncio.sleep(0)
    found = await read_statistics(connection, keys, ["b", "a", "a", "none"])
    assert found.turns == {"cancelled": 2}
    assert found.lease_losses == 1
    assert {name: state.depth for name, state in found.queues.items()} == {"a": 4, "b": 1, "none": 0}
    assert found.queues["none"].oldest_s == 0
    oldest = found.queues["a"].oldest_s
    await asyncio.sleep(0.05)
    later = (await read_statistics(connection, keys, ["a"])).queues["a"].oldest_s
    assert 0.05 <= later - oldest < 5


@pytest.mark.parametrize("buckets", [64, 400])
async def test_the_sum_over_many_buckets_is_kept_for_others_that_ask(
    connection: RedisConnection, redis_prefix: str, buckets: int
) -> None:
    keys = Keyspace(redis_prefix, buckets=buckets)
    turns = TurnStore(connection, keys)
    await turns.submit(request("t1"))
    first = await read_statistics(connection, keys, ["a"])
    assert first.queues["a"].depth == 1
    await turns.submit(request("t2"))
    # With few buckets each asks for itself.
    second = await read_statistics(connection, keys, ["a"])
    assert second.queues["a"].depth == (2 if buckets == 64 else 1)
    if buckets == 400:
        assert second == first
        assert (await read_statistics(connection, keys, ["a", "b"])).queues["a"].depth == 2, (
            "another question"
        )
        async with asyncio.timeout(5):
            while (await read_statistics(connection, keys, ["a"])).queues["a"].depth == 1:
                await asyncio.sleep(0.05)
