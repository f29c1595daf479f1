"""Gateways: what a delivered token costs where many gateways share a Cluster, against one gateway.

`python -m benchmarks --stages gateways`, or one run at a time, each about two minutes: `python -m benchmarks.gateways 20`.
The same sessions and the same tokens, on the same number of Redis servers (version 7 or newer).
"""

from __future__ import annotations

import asyncio
import sys

from rich.console import Console

from benchmarks.figures import Figure, show
from benchmarks.redis_cluster import RedisCluster
from selfhost_transport.loadtest.plan import Load, LocalOptions, Plan
from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.run import Runner, Watcher
from selfhost_transport.loadtest.stack import LocalStack

GATEWAYS = (1, 20)
NODES = 3
SESSIONS = 2000
_RATE = 8.0
# Long turns: what a turn costs apart from its tokens has a stage of its own.
_TOKENS = 400
_QUICK_S = 1.0
_ROLES = ("gateway", "worker", "redis")


def run(seconds: float) -> list[Figure]:
    """Figures of this stage. Raises RuntimeError when a run broke a promise."""
    sessions = SESSIONS if seconds > _QUICK_S else SESSIONS // 20
    costs = [(count, asyncio.run(measure(count, NODES, _load(sessions, 2 * seconds)))) for count in GATEWAYS]
    found = [figure for count, result in costs for figure in _figures(count, result)]
    one, many = (sum(_us(result).values()) for _, result in costs)
    return [*found, Figure("gateways", f"{GATEWAYS[-1]} gateways against one, all CPU", many / one, "times")]


def _load(sessions: int, seconds: float) -> Load:
    return Load(turns=sessions, rate=_RATE, tokens=_TOKENS, duration_s=seconds)


async def measure(gateways: int, nodes: int, load: Load) -> RunResult:
    """One run on processes of its own. Raises RuntimeError when it broke a promise."""
    options = LocalOptions(turns=load.turns, gateways=gateways)
    async with LocalStack(options, RedisCluster(nodes)) as stack:
        result = await asyncio.to_thread(Runner(Plan(stack.target, load), Watcher(), stack).run)
    if result.violation_counts:
        raise RuntimeError(f"{gateways} gateways: {result.violation_counts}")
    return result


def _us(result: RunResult) -> dict[str, float]:
    return {role: result.usage[role].us_per_token for role in _ROLES}


def _figures(count: int, result: RunResult) -> list[Figure]:
    name, token = (
        f"{count} gateways, {NODES} Redis, {result.load.turns} sessions",
        result.summary(Metric.TOKEN),
    )
    return [
        Figure("gateways", f"{name}: tokens received", result.tokens_per_s, "tokens/s"),
        Figure("gateways", f"{name}: token due to received, p99", token.p99, "ms"),
        *(Figure("gateways", f"{name}: {role}", us, "us per token") for role, us in _us(result).items()),
        *(
            Figure("gateways", f"{name}: {role}, woken", result.usage[role].wakes_per_s, "times a second")
            for role in _ROLES
        ),
    ]


if __name__ == "__main__":
    for given in sys.argv[1:]:
        show(_figures(int(given), asyncio.run(measure(int(given), NODES, _load(SESSIONS, 10.0)))), Console())
