"""Sizing: what one core carries at 70 % use, from loads with the whole way, every token of them verified.

Costs per token fall with load, since one system call then carries more: the loads here fill the machine by half.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from benchmarks import connect
from benchmarks.figures import Figure
from selfhost_transport.loadtest.plan import Load, LocalOptions, Plan
from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.run import Runner, Watcher
from selfhost_transport.loadtest.stack import LocalStack

_USE = 0.7
_SHORT_TOKENS = 2
_SCRIPTED = Load(turns=300, tokens=300, duration_s=8.0)
_SHORT = Load(turns=100, tokens=_SHORT_TOKENS, pause_s=0.46, duration_s=6.0)
# A provider that is a process on the same cores, and tokens that arrive one by one. The turns begin slowly: each costs
# the provider's client milliseconds.
_REAL = Load(turns=500, tokens=120, rate=10.0, warmup_s=11.0, duration_s=8.0, patience_s=30.0)
_ADAPTERS = {"openai": "chat", "openai with the aiohttp client": "chat_aiohttp", "anthropic": "claude"}
_ROLES = ("gateway", "worker", "redis")


def run(seconds: float) -> list[Figure]:
    """Figures of this stage. A part that broke a promise says so, and the rest goes on."""
    parts: list[Callable[[], list[Figure]]] = [_scripted, _turns, partial(_connections, seconds)]
    parts += [partial(_real, name, worker) for name, worker in _ADAPTERS.items()]
    return [figure for part in parts for figure in _reported(part)]


def _reported(part: Callable[[], list[Figure]]) -> list[Figure]:
    """The figures of a part, said at once: all of them take minutes."""
    try:
        found = part()
    except RuntimeError as error:
        print(f"failed: {error}", flush=True)
        return []
    for figure in found:
        print(f"{figure.name}: {figure.value:,.1f} {figure.unit}", flush=True)
    return found


def _measured(load: Load, agent: str = "") -> RunResult:
    options = LocalOptions(turns=load.turns, agent=agent, provider=("--first-token", "0") if agent else None)
    return asyncio.run(_run(load, options))


async def _run(load: Load, options: LocalOptions) -> RunResult:
    async with LocalStack(options) as stack:
        result = await asyncio.to_thread(Runner(Plan(stack.target, load), Watcher(), stack).run)
    if result.violation_counts or set(result.outcomes) != {"complete"}:
        raise RuntimeError(f"{options.agent or 'scripted'}: {result.violation_counts}, {result.outcomes}")
    return result


def _per_core(us: float) -> float:
    return _USE * 1e6 / us


def _scripted() -> list[Figure]:
    result = _measured(_SCRIPTED)
    found = []
    for role in _ROLES:
        us = result.usage[role].us_per_token
        found += [
            Figure("sizing", f"{role}, scripted model", us, "us per token"),
            Figure("sizing", f"{role}, scripted model, a core at 70 %", _per_core(us), "tokens/s"),
        ]
    return found


def _turns() -> list[Figure]:
    result = _measured(_SHORT)
    per_s = result.tokens_per_s / _SHORT_TOKENS
    found = []
    for role in _ROLES:
        us = result.usage[role].cores * 1e6 / per_s
        found += [
            Figure("sizing", f"{role}, a turn of {_SHORT_TOKENS} tokens", us, "us per turn"),
            Figure("sizing", f"{role}, turns, a core at 70 %", _per_core(us), "turns/s"),
        ]
    return found


def _connections(seconds: float) -> list[Figure]:
    us = connect.run(seconds)[0].value
    return [Figure("sizing", "gateway, new connections, a core at 70 %", _per_core(us), "connections/s")]


def _real(name: str, worker: str) -> list[Figure]:
    """Turns of a real adapter, through the provider's library, all the way to the viewers."""
    result = _measured(_REAL, f"benchmarks.provider_agent:{worker}")
    token, first = result.summary(Metric.TOKEN), result.summary(Metric.FIRST_TOKEN)
    us = result.usage["worker"].us_per_token
    load = f"{_REAL.turns} turns of {name}"
    return [
        Figure("sizing", f"{load}: tokens received", result.tokens_per_s, "tokens/s"),
        Figure(
            "sizing", f"{load}: of those due", result.tokens_per_s / result.expected_tokens_per_s,
            "ratio of the ceiling",
        ),
        Figure("sizing", f"{load}: token due to received, p50", token.p50, "ms"),
        Figure("sizing", f"{load}: token due to received, p99", token.p99, "ms"),
        Figure("sizing", f"{load}: send to first token, p99", first.p99, "ms"),
        *(
            Figure("sizing", f"{load}: {role}", usage.us_per_token, "us per token")
            for role, usage in result.usage.items()
        ),
        Figure("sizing", f"{load}: worker, a core at 70 %", _per_core(us), "tokens/s"),
    ]  # fmt: skip
