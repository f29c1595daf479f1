"""What the deployment as a whole has done and has to do: counted where it happens, in Redis (acceptance OPS-1)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.held_buckets import FEW_BUCKETS
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.names import joined

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
    """Add up all buckets. Costs three short commands per bucket and agent.

    The sum over many buckets is kept for as many ms as there are, for others that are scraped at the same time.
    Raises StoreUnavailable.
    """
    names = sorted(set(agents))
    if keys.buckets <= FEW_BUCKETS:
        return await _add_up(redis, keys, names)
    kept = f"{keys.prefix}:statistics:{joined(*names)}"
    if (packed := await redis.command("GET", kept)) is not None:
        turns, lease_losses, queues = orjson.loads(packed)
        return Statistics(turns, lease_losses, {name: QueueState(*state) for name, state in queues.items()})
    sums = await _add_up(redis, keys, names)
    states = {name: (state.depth, state.oldest_s) for name, state in sums.queues.items()}
    packed = orjson.dumps([sums.turns, sums.lease_losses, states])
    await redis.command("SET", kept, packed, "PX", keys.buckets)
    return sums


async def _add_up(redis: RedisConnection, keys: Keyspace, names: Sequence[str]) -> Statistics:
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
