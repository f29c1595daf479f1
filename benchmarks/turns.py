"""Turns: what each costs, how fast they stop, what waits for whom, and what follows when a worker is killed."""

from __future__ import annotations

import asyncio

from benchmarks import turn_cost, turn_order, turn_stops
from benchmarks.figures import Figure

_QUICK_BELOW_S = 2.0


def run(seconds: float) -> list[Figure]:
    """Figures of this stage; fewer turns at once where there is little time."""
    quick = seconds < _QUICK_BELOW_S
    found = asyncio.run(turn_cost.measure(500 if quick else 2000))
    for turns in (10, 50) if quick else (10, 100, 500):
        for silent in (False, True):
            found += asyncio.run(turn_stops.measure(turns, silent=silent))
    found += asyncio.run(turn_order.queue_wait(20 if quick else 50))
    found += asyncio.run(turn_order.killed(turns=20, lease_ms=1_000))
    if not quick:
        found += asyncio.run(turn_order.killed(turns=20, lease_ms=10_000))
    return found
