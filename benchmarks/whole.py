"""The whole way: turns of the scripted model through worker, Redis and gateway to viewers, verified."""

from __future__ import annotations

import asyncio

from benchmarks.figures import Figure
from selfhost_transport.loadtest.plan import Load, LocalOptions, Plan
from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.run import Runner, Watcher
from selfhost_transport.loadtest.stack import LocalStack

# (turns at once, ms for which tokens are gathered)
_LOADS = ((200, 0), (300, 0), (500, 0), (200, 40), (500, 40), (1000, 40), (2000, 40))
_TOKENS = 1000


def run(seconds: float) -> list[Figure]:
    """Figures of this stage. Raises RuntimeError when a run broke a promise."""
    return [figure for turns, window in _LOADS for figure in asyncio.run(_run(turns, window, seconds * 2))]


async def _run(turns: int, window_ms: int, seconds: float) -> list[Figure]:
    load = Load(turns=turns, tokens=_TOKENS, duration_s=seconds)
    return figures(await measure(load, window_ms), "whole", f"{turns} turns, {window_ms} ms")


async def measure(load: Load, window_ms: int, watcher: Watcher | None = None) -> RunResult:
    """One run on processes of its own. Raises RuntimeError when it broke a promise."""
    async with LocalStack(LocalOptions(turns=load.turns, window_ms=window_ms)) as stack:
        runner = Runner(Plan(stack.target, load), watcher or Watcher(), stack)
        result = await asyncio.to_thread(runner.run)
    if result.violation_counts:
        raise RuntimeError(f"{load.turns} turns: {result.violation_counts}")
    return result


def figures(result: RunResult, stage: str, name: str) -> list[Figure]:
    """What is worth comparing of a run."""
    token, first = result.summary(Metric.TOKEN), result.summary(Metric.FIRST_TOKEN)
    share = result.tokens_per_s / result.expected_tokens_per_s
    return [
        Figure(stage, f"{name}: tokens received", result.tokens_per_s, "tokens/s"),
        Figure(stage, f"{name}: of those due", share, "ratio of the ceiling"),
        Figure(stage, f"{name}: token due to received, p50", token.p50, "ms"),
        Figure(stage, f"{name}: token due to received, p99", token.p99, "ms"),
        Figure(stage, f"{name}: send to first token, p50", first.p50, "ms"),
        Figure(stage, f"{name}: send to first token, p99", first.p99, "ms"),
        *(
            Figure(stage, f"{name}: {role}", usage.us_per_token, "us per token")
            for role, usage in result.usage.items()
        ),
    ]
