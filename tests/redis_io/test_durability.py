"""Durability `wait:N`: what was acknowledged is on a replica, and is there after a fail-over (P11)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from selfhost_transport.errors import StoreUnavailable, TransportError
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import load_settings
from tests.processes import wait_until
from tests.redis_io.clusters import clustered
from tests.redis_io.lua import Lua
from tests.redis_io.sentinels import port_of, watched

FAIL_OVERS = 20 if os.environ.get("SELFHOST_TRANSPORT_LONG") else 1
PUSH = Lua("return redis.call('RPUSH', KEYS[1], ARGV[1])")
SET = Lua("redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]")


@pytest.fixture
def pair() -> Iterator[tuple[EmbeddedRedis, EmbeddedRedis]]:
    """A primary and its replica."""
    with EmbeddedRedis() as primary, EmbeddedRedis() as replica:
        with redis.Redis.from_url(primary.url) as admin:
            admin.config_set("repl-diskless-sync-delay", 0)
        with redis.Redis.from_url(replica.url) as admin:
            admin.replicaof("127.0.0.1", str(port_of(primary)))
        yield primary, replica


async def _in_step(primary: EmbeddedRedis) -> None:
    with redis.Redis.from_url(primary.url) as admin:
        await wait_until(lambda: "online" in str(admin.info("replication").get("slave0")), 20)


async def test_an_acknowledged_write_is_on_the_replica(pair: tuple[EmbeddedRedis, EmbeddedRedis]) -> None:
    primary, replica = pair
    await _in_step(primary)
    connection = RedisConnection(primary.url, timeout_s=5, replicas=1)
    with redis.Redis.from_url(replica.url) as there:
        for number in range(1, 51):
            replies = await asyncio.gather(*(connection.call(PUSH, ["list"], [number]) for _ in range(3)))
            assert there.llen("list") == max(replies) == 3 * number
    await connection.close()


async def test_a_write_that_no_replica_has_is_not_acknowledged(
    pair: tuple[EmbeddedRedis, EmbeddedRedis],
) -> None:
    primary, replica = pair
    await _in_step(primary)
    connection = RedisConnection(primary.url, timeout_s=2, replicas=1)
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas have it") as failed:
            await connection.call(PUSH, ["list"], [1])
        assert failed.value.retryable
        kept = connection.call(SET, ["one"], ["x"], retry_s=20)
        await asyncio.sleep(1.2)  # longer than one wait for the replica
        assert not kept.done()
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    assert await kept == b"x"
    await connection.close()


async def _written_until(connection: RedisConnection, kill: asyncio.Task[None]) -> set[int]:
    """Write numbers until a while after the kill; those that were acknowledged."""
    acknowledged: set[int] = set()

    async def write(first: int) -> None:
        number = first
        while not kill.done():
            try:
                await connection.call(PUSH, [f"{{b{first}}}:list"], [number])
                acknowledged.add(number)
            except TransportError:
                await asyncio.sleep(0.01)  # until there is a primary again
            number += 100

    await asyncio.gather(*(write(first) for first in range(16)))
    await kill
    return acknowledged


async def _found(connection: RedisConnection) -> set[int]:
    lists = [
        await connection.command("LRANGE", f"{{b{first}}}:list", 0, -1, retry_s=20) for first in range(16)
    ]
    return {int(number) for found in lists for number in found}


async def test_no_acknowledged_write_is_lost_in_a_fail_over_of_a_cluster(tmp_path: Path) -> None:
    for number in range(FAIL_OVERS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with clustered(folder) as cluster:
            await wait_until(cluster.replicate, 30, "a replica that knows its primary")
            await wait_until(cluster.ready, 30, "servers that know each other")
            # Only the first has a replica, so the others' writes would not be acknowledged.
            connection = RedisConnection(cluster.url, timeout_s=4, replicas=1)
            acknowledged = await _written_until(connection, asyncio.create_task(_soon(cluster.kill_first)))
            assert acknowledged and acknowledged <= await _found(connection)
            await connection.close()


async def test_no_acknowledged_write_is_lost_in_a_fail_over_under_sentinel(tmp_path: Path) -> None:
    for number in range(FAIL_OVERS):
        folder = tmp_path / str(number)
        folder.mkdir()
        with watched(folder) as deployment:
            await wait_until(deployment.ready, 30, "Sentinels that know each other")
            connection = RedisConnection(deployment.url, timeout_s=10, replicas=1)
            kill = asyncio.create_task(_soon(deployment.kill_primary))
            acknowledged = await _written_until(connection, kill)
            # The one that is left has no replica; reading needs none.
            assert acknowledged and acknowledged <= await _found(connection)
            await connection.close()


async def _soon(kill: object) -> None:
    await asyncio.sleep(0.5)  # of writing
    await kill()  # type: ignore[operator]


def test_the_setting() -> None:
    assert load_settings(durability="wait:2").redis.replicas == 2
    assert load_settings().redis.replicas == load_settings(durability="none").redis.replicas == 0
    with pytest.raises(TransportError, match="durability"):
        load_settings(durability="wait")
