"""What the deployment as a whole has done and has to do: counted where it happens, in Redis (acceptance OPS-1)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.keys import Keyspace

LEASE_LOSSES = "lease_losses"


@dataclass(frozen=True, slots=True)
class QueueState:
    """Turns of an agent that wait for a worker. `oldest_s`: how long the first of them has waited; 0 for none."""

    depth: int
    oldest_s: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """`turns`: terminals by status, since the first use of the prefix. `queues`: by agent."""

    turns: dict[str, int]
    lease_losses: int
    queues: dict[str, QueueState]


async def read_statistics(redis: RedisConnection, keys: Keyspace, agents: Iterable[str]) -> Statistics:
    """Add up all buckets. Costs three short commands per bucket and agent. Raises StoreUnavailable."""
    names = sorted(set(agents))
    seconds, micros = await redis.command("TIME")
    now_ms = int(seconds) * 1000 + int(micros) / 1000
    counted, queues = await asyncio.gather(
        _counted(redis, keys), asyncio.gather(*(_queue(redis, keys, name, now_ms) for name in names))
    )
    lease_losses = counted.pop(LEASE_LOSSES, 0)
    return Statistics(dict(counted), lease_losses, dict(zip(names, queues, strict=True)))


async def _counted(redis: RedisConnection, keys: Keyspace) -> Counter[str]:
    replies = await asyncio.gather(*(redis.command("HGETALL", f"{base}stats") for base in keys.bases()))
    total: Counter[str] = Counter()
    for reply in replies:
        for name, count in zip(reply[::2], reply[1::2], strict=True):
            total[name.decode()] += int(count)
    return total


async def _queue(redis: RedisConnection, keys: Keyspace, agent: str, now_ms: float) -> QueueState:
    streams = [f"{base}q:{agent}" for base in keys.bases()]
    lengths = await asyncio.gather(*(redis.command("XLEN", stream) for stream in streams))
    heads = await asyncio.gather(
        *(redis.command("XRANGE", stream, "-", "+", "COUNT", 1) for stream in streams)
    )
    # An id of a stream is the time at which it was added.
    since = [int(head[0][0].partition(b"-")[0]) for head in heads if head]
    return QueueState(sum(lengths), max(0.0, (now_ms - min(since, default=now_ms)) / 1000))
