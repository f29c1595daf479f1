"""Growth: what a token costs while ever more sessions lie open beside it; it should not matter how many."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from benchmarks.figures import Figure
from selfhost_transport.loadtest.fleet import LoadProcesses
from selfhost_transport.loadtest.plan import Load, LocalOptions, Plan, Scenario, shares
from selfhost_transport.loadtest.run import Runner, Watcher
from selfhost_transport.loadtest.stack import LocalStack

_OPEN = (100, 1000, 4000)
_TURNS = 100


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return [figure for sessions in _OPEN for figure in asyncio.run(_run(sessions, seconds * 2))]


async def _run(sessions: int, seconds: float) -> list[Figure]:
    load = Load(turns=_TURNS, duration_s=seconds)
    async with LocalStack(LocalOptions(turns=_TURNS)) as stack:
        plan = Plan(stack.target, load)
        idle = replace(load, scenario=Scenario.IDLE, turns=sessions, duration_s=3600.0, processes=1)
        return await asyncio.to_thread(_measure, stack, plan, idle)


def _measure(stack: LocalStack, plan: Plan, idle: Load) -> list[Figure]:
    beside = LoadProcesses(shares(replace(plan, load=idle), "idle"), lambda progress: None)
    try:
        beside.start()
        beside.wait_ready()
        beside.go(time.time())
        result = Runner(plan, Watcher(), stack).run()
    finally:
        beside.stop()
    if result.violation_counts:
        raise RuntimeError(f"{idle.turns} sessions: {result.violation_counts}")
    return [
        Figure("growth", f"{role}, {idle.turns + _TURNS} sessions open", usage.us_per_token, "us per token")
        for role, usage in result.usage.items()
        if role != "generator"
    ]
