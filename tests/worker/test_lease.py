"""Leases: kept through trouble with Redis, given up in time, collected from workers that are gone (P3, P6)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil

from agent_worker import Worker
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import Settings, load_settings
from selfhost_transport.store.keys import Keyspace
from tests.processes import wait_until
from tests.worker.session import Room, numbered
from tests.worker.workers import scripted_worker

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


def bucket_of(room: Room) -> int:
    return room.turns.keys.bases().index(room.turns.keys.base_of(room.name))


async def test_dur_10_lost_connections_do_not_lose_a_lease(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings(lease_ms=2000)))
    turn = await room.send("script: tokens=300 rate=100")
    began = time.monotonic()
    while time.monotonic() - began < 2.5:
        await asyncio.sleep(0.25)  # one connection after another is lost, for longer than a lease
        await room.turns.redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    record = await room.ended(turn)
    assert (record.status, record.attempts) == ("completed", 1)
    assert await room.text(turn) == numbered(300)


async def test_a_long_turn_outlives_its_lease(room: Room, settings: MakeSettings, running: Run) -> None:
    await running(scripted_worker(settings(lease_ms=300)))
    turn = await room.send("script: tokens=3 hang_at=3")

    async def written() -> bool:
        return await room.text(turn) == numbered(3)

    await wait_until(written)
    await asyncio.sleep(1.5)  # several leases, and at least one sweep of the reaper
    record = await room.record(turn)
    assert (record.status, record.attempts) == ("active", 1)


async def test_the_lease_of_a_worker_that_is_gone_is_collected(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    turn = await room.send("script: tokens=5")
    assert await room.turns.take(bucket_of(room), "assistant", "gone", 1) is not None
    await running(scripted_worker(settings()))
    record = await room.ended(turn)
    assert (record.status, record.attempts) == ("completed", 2)
    assert await room.text(turn) == numbered(5)


async def test_turns_sent_before_the_worker_started_are_found(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    turns = [await room.send("script: tokens=5") for _ in range(3)]
    await running(scripted_worker(settings()))
    for turn in turns:
        assert (await room.ended(turn)).status == "completed"


async def test_a_missed_wake_up_is_made_good_after_reconnecting(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings()))
    await room.turns.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
    turn = await room.send("script: tokens=5")
    assert (await room.ended(turn, 3.0)).status == "completed"


async def test_redis_away_for_longer_than_the_lease(tmp_path: Path, running: Run) -> None:
    async with EmbeddedRedis(tmp_path) as server:
        connection = RedisConnection(server.url)
        room = Room(connection, Keyspace())
        worker = await running(scripted_worker(load_settings(redis=server.url, lease_ms=500)))
        turn = await room.send("script: tokens=200 rate=100")
        await wait_until(lambda: worker.running == 1)
        redis = psutil.Process(server.pid)
        redis.suspend()
        await asyncio.sleep(3.0)  # six leases, and longer than any worker pauses looking for expired ones
        redis.resume()
        # No one else could take it either: the worker asks, and goes on.
        record = await room.ended(turn)
        assert (record.status, record.attempts) == ("completed", 1)
        assert worker.statistics().outcomes == {"completed": 1}
        assert await room.text(turn) == numbered(200)
        assert await room.terminals(turn) == ["complete"]
        worker.stop()
        await wait_until(lambda: connection.in_flight == 0)
        await connection.close()
