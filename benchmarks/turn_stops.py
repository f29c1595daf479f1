"""Cancel, with a model over HTTP: until the acknowledgement, the terminal, and the end of the provider's response."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks.figures import Figure
from benchmarks.model_server import hang_ups, provider
from benchmarks.rig import KEY, gateway, rig
from benchmarks.turn_agent import PROVIDER
from benchmarks.turn_cost import until
from selfhost_transport.client import ClientTransport
from selfhost_transport.client.session.turn import Turn
from selfhost_transport.commands.children import Child
from selfhost_transport.settings import ENV_PREFIX

TOKENS_PER_S = 1000.0
"""Of all turns together, at most 50 of each: what is measured is the cancel, not a machine at its limit."""
_SPREAD_S = 4.0
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class _Stop:
    """Monotonic times of one cancel: called, acknowledged, terminal seen."""

    name: str
    called: float
    acknowledged: float
    ended: float


async def measure(turns: int, *, silent: bool) -> list[Figure]:
    """So many turns at once, cancelled at random moments, by the Python SDK over a gateway."""
    async with rig() as bench, provider() as model, gateway(bench.server) as entrance:
        environment = {PROVIDER: model, f"{ENV_PREFIX}CONCURRENCY": str(turns)}
        options = ("benchmarks.turn_agent:worker", "--redis", bench.server.url)
        worker = await Child.start("worker", options, environment)
        try:
            await worker.ready()
            stops = await _stop_all(await entrance.ready(), turns, silent=silent)
            closed = await _closed(model, stops)
        finally:
            await worker.stop()
    return _figures(f"{turns} {'silent' if silent else 'streaming'} turns", stops, closed)


async def _stop_all(url: str, turns: int, *, silent: bool) -> list[_Stop]:
    limit = asyncio.Semaphore(16)
    async with AsyncExitStack() as clients, asyncio.timeout(_PATIENCE_S + turns / 10):

        async def begin(number: int) -> Turn:
            async with limit:
                connecting = ClientTransport.connect(
                    url, key=KEY, client_id=f"user-{number}", channel=f"stop-{number}"
                )
                client = await clients.enter_async_context(connecting)
                rate = 0.0 if silent else min(50.0, TOKENS_PER_S / turns)
                turn = await client.view.send(f"turn-{number} {rate}")
                await anext(aiter(turn.stream))
                return turn

        running = await asyncio.gather(*map(begin, range(turns)))
        stops = await asyncio.gather(*(_stop(number, turn) for number, turn in enumerate(running)))
    return list(stops)


async def _stop(number: int, turn: Turn) -> _Stop:
    await asyncio.sleep(random.uniform(0, _SPREAD_S))
    called = time.monotonic()
    acknowledged, ended = await asyncio.gather(_time_of(turn.cancel()), _time_of(turn.ended))
    return _Stop(f"turn-{number}", called, acknowledged, ended)


async def _time_of(event: Awaitable[object]) -> float:
    await event
    return time.monotonic()


async def _closed(model: str, stops: Sequence[_Stop]) -> dict[str, float]:
    """When the provider noticed, once it has for all."""

    async def all_closed() -> bool:
        return len(await hang_ups(model)) >= len(stops)

    await until(all_closed)
    return await hang_ups(model)


def _figures(name: str, stops: Sequence[_Stop], closed: dict[str, float]) -> list[Figure]:
    times = {
        "acknowledged": [stop.acknowledged - stop.called for stop in stops],
        "terminal": [stop.ended - stop.called for stop in stops],
        "provider's response closed": [closed[stop.name] - stop.called for stop in stops],
    }
    return [
        Figure("turns", f"{name}, cancel to {what}, p{per_cent}", percentile(seconds, per_cent) * 1e3, "ms")
        for what, seconds in times.items()
        for per_cent in (50, 99)
    ]


def percentile(values: Sequence[float], per_cent: int) -> float:
    """Of the values as they are: the 99th of a hundred is the second largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * per_cent // 100)]
