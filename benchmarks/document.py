"""`python -m benchmarks document`: everything that docs/performance.md states, as its tables, in about ten minutes.

Needs a quiet machine, and what `python -m benchmarks.rivals` needs. A part that fails says so, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable, Iterable

from benchmarks.figures import Figure, Results
from benchmarks.rivals.__main__ import theirs
from benchmarks.rivals.load import RivalLoad
from benchmarks.rivals.systems import SYSTEMS
from benchmarks.whole import figures, measure
from selfhost_transport.loadtest.plan import Load, Scenario
from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import RunResult

# (turns at once, ms for which tokens are gathered, tokens of a turn). Many turns are long ones: what a turn costs
# apart from its tokens has a table of its own.
_WHOLE = (
    (200, 0, 200), (300, 0, 200), (500, 0, 500), (200, 40, 200), (500, 40, 500), (1000, 40, 1000), (2000, 40, 1000),
)  # fmt: skip
_WHOLE_S = 6.0
# A load that is too much is to show how far it gets.
_PATIENCE_S = 45.0
_SHORT_TOKENS = 2
_SHORT = Load(turns=100, tokens=_SHORT_TOKENS, pause_s=0.46, duration_s=6.0)
_CANCELS = {
    "400 turns streaming, every fifth cancelled at some moment": Load(turns=400, cancel_percent=20, duration_s=6.0),
    "500 turns streaming, all cancelled within a second, a quarter with a silent model": Load(
        Scenario.CANCEL, turns=500, duration_s=8.0, warmup_s=2.0
    ),
    "50 people interrupting in mixed ways": Load(Scenario.INTERRUPT, turns=50, duration_s=8.0),
}  # fmt: skip
_RIVAL_TURNS = (500, 1000)
_RIVAL = RivalLoad(turns=0, rate=50.0, warmup_s=6.0, seconds=6.0)
_STAGE_S = 2.0


def run(stages: Iterable[str], results: Results) -> None:
    """Measure, print Markdown as it becomes known, add the figures to the results."""
    started = time.monotonic()
    _part("The whole way", _whole, results)
    _part("A turn", _turn, results)
    _part("Cancel", _cancel, results)
    _part("Beside others", _rivals, results)
    print("\n### Stages\n\n| stage | figure | |\n|---|---|---|", flush=True)
    for stage in stages:
        _stage(stage, results)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes", flush=True)


def _part(title: str, part: Callable[[Results], None], results: Results) -> None:
    print(f"\n### {title}\n", flush=True)
    try:
        part(results)
    except (RuntimeError, AssertionError, TimeoutError) as error:
        print(f"failed: {error!r}", flush=True)


def _whole(results: Results) -> None:
    _row(
        "turns", "window", "tokens/s", "token due to received, p50 / p99", "first token, p50 / p99",
        "gateway / worker / Redis / generator us",
    )  # fmt: skip
    _row(*["---"] * 6)
    for turns, window, tokens in _WHOLE:
        result = asyncio.run(
            measure(Load(turns=turns, tokens=tokens, duration_s=_WHOLE_S, patience_s=_PATIENCE_S), window)
        )
        results.figures += figures(result, "whole", f"{turns} turns, {window} ms")
        _row(
            f"{turns:,} of {tokens:,} tokens",
            f"{window} ms" if window else "0",
            f"{result.tokens_per_s:,.0f} of {result.expected_tokens_per_s:,.0f}",
            _times(result, Metric.TOKEN),
            _times(result, Metric.FIRST_TOKEN),
            " / ".join(f"{result.usage[role].us_per_token:.0f}" for role in ("gateway", "worker", "redis", "generator")),
        )  # fmt: skip


def _turn(results: Results) -> None:
    result = asyncio.run(measure(_SHORT, 40))
    turns_per_s = result.tokens_per_s / _SHORT_TOKENS
    _row("process", f"us for a turn of {_SHORT_TOKENS} tokens, {turns_per_s:.0f} turns/s")
    _row("---", "---")
    for role, usage in result.usage.items():
        us = usage.cores * 1e6 / turns_per_s
        results.figures.append(Figure("turn", role, us, "us per turn"))
        _row(role, f"{us:,.0f}")


def _cancel(results: Results) -> None:
    _row(
        "load",
        "acknowledged, p50 / p99",
        "last content, p99",
        "terminal, p99",
        "content after the acknowledgement",
    )
    _row(*["---"] * 5)
    for name, load in _CANCELS.items():
        result = asyncio.run(measure(load, 40))
        acknowledged = result.summary(Metric.CANCEL_ACK)
        results.figures.append(Figure("cancel", f"{name}: acknowledged, p99", acknowledged.p99, "ms"))
        _row(
            name,
            _times(result, Metric.CANCEL_ACK),
            f"{result.summary(Metric.CANCEL_CONTENT).p99:.1f} ms",
            f"{result.summary(Metric.CANCEL_TERMINAL).p99:.1f} ms",
            # A run with any is not a result.
            f"0 of {acknowledged.count:,}",
        )


def _rivals(results: Results) -> None:
    """The others, and beside them the rows of the whole way with as many turns, which were taken minutes before."""
    _row(
        "turns",
        "system",
        "tokens/s",
        "token due to received, p50 / p99",
        "lost or out of order",
        "us of CPU per token",
    )
    _row(*["---"] * 6)
    for turns in _RIVAL_TURNS:
        load = RivalLoad(turns, _RIVAL.rate, _RIVAL.warmup_s, _RIVAL.seconds)
        for window in (0, 40):
            _rival_row(
                load, f"this, {window} ms window", _values(results.figures, f"{turns} turns, {window} ms")
            )
        for system in SYSTEMS:
            if missing := system.missing():
                print(f"{system.name} is not installed: {missing}", flush=True)
                continue
            found = asyncio.run(theirs(system, load))
            results.figures += found
            _rival_row(load, system.name, _values(found, system.name))


def _values(found: Iterable[Figure], name: str) -> dict[str, float]:
    return {
        figure.name.removeprefix(f"{name}: "): figure.value
        for figure in found
        if figure.name.startswith(f"{name}: ")
    }


def _rival_row(load: RivalLoad, name: str, value: dict[str, float]) -> None:
    if not value:
        return
    roles = [
        f"{role} {value[role]:.0f}" for role in ("gateway", "worker", "redis", "generator") if role in value
    ]
    _row(
        f"{load.turns:,}",
        name,
        f"{value['tokens received']:,.0f} of {load.due:,.0f}",
        f"{value['token due to received, p50']:,.1f} / {value['token due to received, p99']:,.1f} ms",
        # A run of ours with any is not a result.
        f"{value.get('out of order or lost', 0):.0f}",
        ", ".join(roles),
    )


def _stage(stage: str, results: Results) -> None:
    try:
        found: list[Figure] = importlib.import_module(f"benchmarks.{stage}").run(_STAGE_S)
    except (RuntimeError, AssertionError, TimeoutError) as error:
        print(f"{stage} failed: {error!r}", flush=True)
        return
    results.figures += found
    for figure in found:
        _row(figure.stage, figure.name, f"{figure.value:,.2f} {figure.unit}")


def _times(result: RunResult, metric: Metric) -> str:
    found = result.summary(metric)
    return f"{found.p50:.1f} / {found.p99:.1f} ms"


def _row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)
