"""What many processes cost Redis while nothing happens: `python -m benchmarks.idle_fleet [BUCKETS] [WORKERS]`.

The loops of workers and gateways that visit all buckets, each over a connection of its own, in one process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import redis

from agent_worker.runtime.lease import Reaper
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.duties import Duties
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.presence import PresenceStore
from selfhost_transport.store.retention import Retention
from selfhost_transport.store.statistics import read_statistics
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_store import TurnStore

AGENT = "assistant"
LEASE_MS = 10_000
SETTLE_S = 6
MEASURED_S = 30
WORKERS_PER_GATEWAY = 10


async def every(seconds: float, step: Callable[[], Awaitable[object]]) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        await step()


async def worker(redis_connection: RedisConnection, keys: Keyspace) -> None:
    """Reaping, looking for turns that wait, and a scrape of the metrics every 15 s."""
    duties = Duties(redis_connection, keys)
    turns, pauses = TurnStore(redis_connection, keys), TurnPauses(redis_connection, keys)
    reaper = Reaper(turns, pauses, duties, LEASE_MS)

    async def look() -> None:
        if await duties.falls_to_me(f"look:{AGENT}", 700):
            waiting = await duties.buckets_with_turns(AGENT)
            await asyncio.gather(*(turns.call_again(bucket, AGENT) for bucket in waiting))

    await asyncio.gather(
        reaper.watch(), every(1, look), every(15, lambda: read_statistics(redis_connection, keys, [AGENT]))
    )


async def gateway(redis_connection: RedisConnection, keys: Keyspace) -> None:
    """Sweeping presence and retention."""
    presence, retention = PresenceStore(redis_connection, keys), Retention(redis_connection, keys)

    async def sweep() -> None:
        if await retention.falls_to_me():
            await retention.sweep()

    await asyncio.gather(every(0.5, lambda: presence.sweep_for_all(400)), every(1, sweep))


def cpu_s(url: str) -> float:
    """CPU seconds of a server so far."""
    with redis.Redis.from_url(url) as admin:
        found = cast(dict[str, Any], admin.info("cpu"))
    return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])


async def measure(buckets: int, workers: int) -> None:
    """Print the share of a core that Redis needs."""
    keys = Keyspace("idle", buckets)
    with EmbeddedRedis() as server:
        connections = [RedisConnection(server.url) for _ in range(workers)]
        tasks = [asyncio.create_task(worker(one, keys)) for one in connections]
        tasks += [asyncio.create_task(gateway(one, keys)) for one in connections[::WORKERS_PER_GATEWAY]]
        await asyncio.sleep(SETTLE_S)
        began, used = time.monotonic(), cpu_s(server.url)
        await asyncio.sleep(MEASURED_S)
        share = (cpu_s(server.url) - used) / (time.monotonic() - began)
        print(f"{buckets} buckets, {workers} workers: Redis {share:.2%} of a core")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(one.close() for one in connections))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    asyncio.run(measure(*(given + [1024, 200][len(given) :])[:2]))
