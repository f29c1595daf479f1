"""What more processes cost each other: rounds of the same operations over one connection, and over many."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from benchmarks.rig import AGENT, LEASE_MS, TOKEN, Cpu, Rig, rig
from benchmarks.simulation.units import MeshCost
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.turn_store import TurnStore

_MANY = 64
_ROUNDS = 300
_CHANNEL = "bench-notices"


async def measure_mesh() -> MeshCost:
    """In microseconds of CPU."""
    async with rig() as bench:
        one, many = [await _appends(bench, count) for count in (1, _MANY)]
        sockets = [(after - before) / (_MANY - 1) for before, after in zip(one, many, strict=True)]
        notice = await _notice_us(bench)
        take_worker, take_redis = await _empty_take_us(bench)
    return MeshCost(sockets[1], sockets[0], notice, take_redis, take_worker)


async def measure_trip_us() -> float:
    """A lone append, there and back: the median."""
    async with rig() as bench:
        turn = await bench.open_text("bench-trip")
        times = []
        for _ in range(1000):
            began = time.perf_counter()
            await bench.turns.append(turn.lease, turn.text, TOKEN)
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2] * 1e6


async def _appends(bench: Rig, connections: int) -> tuple[float, float]:
    """(us of this process, us of Redis) for a round of as many appends as there are connections at most."""
    async with AsyncExitStack() as stack:
        links = [RedisConnection(bench.server.url) for _ in range(connections)]
        for link in links:
            stack.push_async_callback(link.close)
        stores = [TurnStore(link, bench.keys) for link in links]
        turns = [await bench.open_text(f"bench-{connections}-{number}") for number in range(_MANY)]

        async def step() -> None:
            await asyncio.gather(
                *(
                    stores[number % connections].append(turn.lease, turn.text, TOKEN)
                    for number, turn in enumerate(turns)
                )
            )

        return await _per_round(bench, step)


async def _notice_us(bench: Rig) -> float:
    """Redis, for each subscriber that is notified."""
    costs = []
    for count in (1, _MANY):
        async with AsyncExitStack() as stack:
            heard = asyncio.Semaphore(0)
            for _ in range(count):
                subscriber = Subscriber(bench.server.url)
                stack.push_async_callback(subscriber.close)
                await subscriber.subscribe(_CHANNEL, lambda _, heard=heard: heard.release())  # type: ignore[misc]

            async def step(count: int = count, heard: asyncio.Semaphore = heard) -> None:
                await bench.redis.command("PUBLISH", _CHANNEL, "wake")
                for _ in range(count):
                    await heard.acquire()

            costs.append((await _per_round(bench, step))[1])
    return (costs[1] - costs[0]) / (_MANY - 1)


async def _empty_take_us(bench: Rig) -> tuple[float, float]:
    """(us of the worker, us of Redis) for a look into a queue that is empty."""

    async def step() -> None:
        await asyncio.gather(*(bench.turns.take(0, AGENT, "bench", LEASE_MS) for _ in range(_MANY)))

    await bench.redis.command("XADD", f"{bench.keys.base(0)}q:{AGENT}", "*", "turn", "none")
    await bench.redis.command("XTRIM", f"{bench.keys.base(0)}q:{AGENT}", "MAXLEN", 0)
    worker, server = await _per_round(bench, step)
    return worker / _MANY, server / _MANY


async def _per_round(bench: Rig, step: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    await step()
    own, server = Cpu(os.getpid()), Cpu(bench.server.pid)
    for _ in range(_ROUNDS):
        await step()
    return own.spent_us() / _ROUNDS, server.spent_us() / _ROUNDS
