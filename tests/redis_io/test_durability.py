"""Durability `wait:N`: what was acknowledged is on a replica, and is there after a fail-over (P11)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import redis

from selfhost_transport.accelerator import append_command
from selfhost_transport.errors import StoreUnavailable, TransportError
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.refusals import RedisFailure
from selfhost_transport.settings import load_settings
from tests.processes import wait_until
from tests.promptness import assert_quick, prompt
from tests.redis_io.fail_over import fail_over
from tests.redis_io.lua import NEXT, SEVERAL_NEXT, Lua
from tests.redis_io.sentinels import port_of

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


async def test_each_of_several_writes_in_one_call_waits_for_the_replica(
    pair: tuple[EmbeddedRedis, EmbeddedRedis],
) -> None:
    primary, replica = pair
    await _in_step(primary)
    connection = RedisConnection(primary.url, timeout_s=5, replicas=1)
    connection.keep_loaded([NEXT, SEVERAL_NEXT])
    lists = [connection.prepare(NEXT, [f"n{at}"], [], several=SEVERAL_NEXT) for at in range(5)]

    def write(number: int, retry_s: float) -> list[asyncio.Future[bytes]]:
        answers: list[asyncio.Future[bytes]] = [asyncio.get_running_loop().create_future() for _ in lists]
        for one, answer in zip(lists, answers, strict=True):
            one.call(append_command(one.head, number, b"", b""), answer, retry_s)
        return answers

    with redis.Redis.from_url(replica.url) as there:
        for number in range(20):
            # Where the replica was slow, a write is asked for again, and is recognised.
            assert {*await asyncio.gather(*write(number, 60.0))} <= {b"ok", b"gap"}
            assert [there.llen(f"n{at}") for at in range(5)] == [number + 1] * 5
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        refused = await asyncio.gather(*write(20, 0.0), return_exceptions=True)
        assert {type(error) for error in refused} == {RedisFailure}
        kept = write(21, 60.0)
        await asyncio.sleep(1.2)  # longer than one wait for the replica
        assert not any(answer.done() for answer in kept)
    finally:
        os.kill(replica.pid, signal.SIGCONT)
    # They were carried out, and are recognised.
    assert await asyncio.gather(*kept) == [b"gap"] * 5
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


@pytest.mark.parametrize("where", ["sentinel", "cluster"])
async def test_no_acknowledged_entry_is_lost_in_a_fail_over(where: str, tmp_path: Path) -> None:
    for number in range(FAIL_OVERS):
        folder = tmp_path / str(number)
        folder.mkdir()
        # The replica is behind when its primary is killed: what it had not received was not acknowledged.
        found = await fail_over(where, "wait:1", folder, behind_s=0.2)
        assert found.acknowledged and not found.lost, found.lost


async def test_what_is_acknowledged_at_once_is_lost_with_the_lag_of_the_replica(tmp_path: Path) -> None:
    numbers = count()

    @prompt
    async def lose() -> None:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        found = await fail_over("sentinel", "everysec", folder, behind_s=0.2)
        assert found.lost
        assert_quick(found.window_s, 1.0)

    await lose()


def test_the_setting() -> None:
    assert load_settings(durability="wait:2").redis.replicas == 2
    assert load_settings().redis.replicas == load_settings(durability="none").redis.replicas == 0
    with pytest.raises(TransportError, match="durability"):
        load_settings(durability="wait")
