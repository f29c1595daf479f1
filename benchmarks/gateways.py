"""Gateways: what a delivered token costs where many gateways share a Cluster, against one gateway.

`python -m benchmarks --stages gateways`, or single runs of one to two minutes, gateways:sessions:
`python -m benchmarks.gateways 1:100 1:2000 20:2000`. The same tokens for each session, on the same number of Redis servers
(version 7 or newer). One gateway with all sessions shares its system calls among more tokens than each of twenty; one with a
twentieth of the sessions is as busy as each of them, so what is more than that is the price of their number.
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

MANY = 20
NODES = 3
SESSIONS = 2000
_RATE = 5.0
# Long turns: what a turn costs apart from its tokens has a stage of its own.
_TOKENS = 200
_QUICK_S = 1.0
_ROLES = ("gateway", "worker", "redis")


def run(seconds: float) -> list[Figure]:
    """Figures of this stage. Raises RuntimeError when a run broke a promise."""
    sessions = SESSIONS if seconds > _QUICK_S else MANY
    share, one, many = (
        asyncio.run(measure(gateways, NODES, _load(count, 2 * seconds)))
        for gateways, count in ((1, sessions // MANY), (1, sessions), (MANY, sessions))
    )
    return [
        *(figure for result in (share, one, many) for figure in _figures(result)),
        Figure("gateways", "many against one, gateways", _us(many)["gateway"] / _us(one)["gateway"], "times"),
        Figure("gateways", "many against one, all CPU", _total(many) / _total(one), "times"),
        Figure(
            "gateways",
            "many against one that is as busy as each, gateways",
            _us(many)["gateway"] / _us(share)["gateway"],
            "times",
        ),
    ]


async def measure(gateways: int, nodes: int, load: Load) -> RunResult:
    """One run on processes of its own. Raises RuntimeError when it broke a promise."""
    options = LocalOptions(turns=load.turns, gateways=gateways)
    async with LocalStack(options, RedisCluster(nodes)) as stack:
        result = await asyncio.to_thread(Runner(Plan(stack.target, load), Watcher(), stack).run)
    if result.violation_counts:
        raise RuntimeError(f"{gateways} gateways: {result.violation_counts}")
    return result


def _load(sessions: int, seconds: float) -> Load:
    return Load(turns=sessions, rate=_RATE, tokens=_TOKENS, duration_s=seconds)


def _us(result: RunResult) -> dict[str, float]:
    return {role: result.usage[role].us_per_token for role in _ROLES}


def _total(result: RunResult) -> float:
    return sum(_us(result).values())


def _figures(result: RunResult) -> list[Figure]:
    name = f"{result.environment.gateways} gateways, {NODES} Redis, {result.load.turns} sessions"
    token = result.summary(Metric.TOKEN)
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
        processes, _, sessions = given.partition(":")
        load = _load(int(sessions or SESSIONS), 10.0)
        show(_figures(asyncio.run(measure(int(processes), NODES, load))), Console(width=150))
