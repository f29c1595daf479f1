"""Offers more than the capacity: finds the capacity, tries multiples of it in turn, and lets the load fall again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median

from selfhost_transport.loadtest.assemble import percentile_ms
from selfhost_transport.loadtest.plan import Load, OverloadOptions
from selfhost_transport.loadtest.recorder import Metric, Recording, SendSecond
from selfhost_transport.loadtest.result import Check, OverloadStep, RunResult
from selfhost_transport.loadtest.window import Window

RECOVERY_S = 2.0
"""How long after the load has fallen latencies may still be those of the overload."""
_FIRST_SENDS_PER_S = 50.0
_MOST_SENDS_PER_S = 20_000.0
# A rate that is not achieved to this share is beyond the capacity.
_ACHIEVED = 0.95
_SEARCH_S = 5.0
# On a machine that others use too, one bad run says little.
_TRIES = 2
_CALM_S = 8.0
_CALM_FACTOR = 0.5

RunOnce = Callable[[Load], tuple[RunResult, Recording, Window]]


def find_capacity(load: Load, run: RunOnce) -> float:
    """Maximum turns per second of the deployment, by doubling the offered load until that fails twice."""
    offered, most, failed = _FIRST_SENDS_PER_S, 0.0, 0
    while offered <= _MOST_SENDS_PER_S and failed < _TRIES:
        tried = replace(load, sends_per_s=offered, duration_s=min(load.duration_s, _SEARCH_S))
        achieved = step_of(*run(tried), factor=0.0, number=0).achieved_per_s
        most = max(most, achieved)
        if achieved < offered * _ACHIEVED:
            failed += 1
        else:
            offered, failed = 2 * offered, 0
    return most


def try_factors(
    load: Load, options: OverloadOptions, run: RunOnce, report: Callable[[OverloadStep], None]
) -> RunResult:
    """All factors, as often as asked for. The result is that of the last run, with the figures of every one."""
    capacity = load.sends_per_s or find_capacity(load, run)
    steps: list[OverloadStep] = []
    for number in range(options.rounds):
        for factor in options.factors:
            tried = _load_at(load, capacity, factor, falls=factor == max(options.factors))
            result, recording, window = run(tried)
            steps.append(step_of(result, recording, window, factor=factor, number=number))
            report(steps[-1])
    result.overload = steps
    return result


def _load_at(load: Load, capacity: float, factor: float, *, falls: bool) -> Load:
    offered = replace(load, sends_per_s=capacity * factor)
    if not falls:
        return offered
    return replace(
        offered,
        calm_s=_CALM_S,
        calm_sends_per_s=capacity * _CALM_FACTOR,
        duration_s=load.duration_s + _CALM_S,
    )


def step_of(
    result: RunResult, recording: Recording, window: Window, *, factor: float, number: int
) -> OverloadStep:
    """The figures of a run, of its whole seconds."""
    fell = window.calm_from(result.load)
    loaded = _between(recording, window.begin, fell)
    calm = _between(recording, fell + RECOVERY_S, window.end)
    seconds = max(1, len(loaded))
    first = [took for second in loaded for took in second.first_tokens]
    inside = [moment for moment in result.moments if 0 <= moment.at < fell - window.begin]
    return OverloadStep(
        factor=factor,
        round=number,
        offered_per_s=sum(second.offered for second in loaded) / seconds,
        achieved_per_s=sum(second.ended for second in loaded) / seconds,
        shed_per_s=sum(second.shed for second in loaded) / seconds,
        first_token_p50=percentile_ms(first, 50),
        first_token_p99=percentile_ms(first, 99),
        refusal_p99=result.summary(Metric.REFUSAL).p99,
        generator_lag_p99=result.summary(Metric.LAG).p99,
        memory={role: max(one.memory.get(role, 0) for one in inside) for role in _roles(result)},
        cpu={role: median(one.cpu.get(role, 0.0) for one in inside) for role in _roles(result)},
        calm_first_token_p99=percentile_ms([took for second in calm for took in second.first_tokens], 99),
    )


def _between(recording: Recording, begin: float, end: float) -> list[SendSecond]:
    """Whole seconds from one time to another; in some of them nothing may have happened."""
    first = int(begin) + (begin % 1 > 0)
    return [recording.sends.get(second, SendSecond()) for second in range(first, int(end))]


def _roles(result: RunResult) -> list[str]:
    return list(result.usage) if result.moments else []


def goodput(steps: list[OverloadStep]) -> dict[float, float]:
    """Turns per second that ended, by factor: the median of its rounds."""
    factors = sorted({step.factor for step in steps})
    return {
        factor: median(step.achieved_per_s for step in steps if step.factor == factor) for factor in factors
    }


def check_goodput(steps: list[OverloadStep], least: float | None) -> list[Check]:
    """Whether goodput beyond the capacity is at least this share of the most that was seen."""
    if least is None:
        return []
    achieved = goodput(steps)
    most = max(achieved.values(), default=0.0)
    shares = {factor: value / most if most else 0.0 for factor, value in achieved.items() if factor > 1}
    return [
        Check(f"goodput at {factor:g} times the capacity", least, share, share >= least)
        for factor, share in shares.items()
    ]
