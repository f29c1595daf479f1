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
_LOADS = ((200, 0), (500, 0), (500, 40), (1000, 40))


def run(seconds: float) -> list[Figure]:
    """Figures of this stage. Raises RuntimeError when a run broke a promise."""
    return [figure for turns, window in _LOADS for figure in asyncio.run(_run(turns, window, seconds * 2))]


async def _run(turns: int, window_ms: int, seconds: float) -> list[Figure]:
    load = Load(turns=turns, duration_s=seconds)
    async with LocalStack(LocalOptions(turns=turns, window_ms=window_ms)) as stack:
        runner = Runner(Plan(stack.target, load), Watcher(), stack)
        result = await asyncio.to_thread(runner.run)
    if result.violation_counts:
        raise RuntimeError(f"{turns} turns: {result.violation_counts}")
    return _figures(result, f"{turns} turns, {window_ms} ms")


def _figures(result: RunResult, name: str) -> list[Figure]:
    token, first = result.summary(Metric.TOKEN), result.summary(Metric.FIRST_TOKEN)
    share = result.tokens_per_s / result.expected_tokens_per_s
    found = [
        Figure("whole", f"{name}: tokens received", result.tokens_per_s, "tokens/s"),
        Figure("whole", f"{name}: of those due", share, "ratio of the ceiling"),
        Figure("whole", f"{name}: token due to received, p50", token.p50, "ms"),
        Figure("whole", f"{name}: token due to received, p99", token.p99, "ms"),
        Figure("whole", f"{name}: send to first token, p50", first.p50, "ms"),
        Figure("whole", f"{name}: send to first token, p99", first.p99, "ms"),
    ]
    for role, usage in result.usage.items():
        found.append(Figure("whole", f"{name}: {role}", usage.us_per_token, "us per token"))
    return found
