"""From what was recorded and sampled to the result of a run."""

from __future__ import annotations

import math

from selfhost_transport.loadtest.histogram import Histogram, Summary
from selfhost_transport.loadtest.plan import Load, Scenario
from selfhost_transport.loadtest.poller import ROUND_S
from selfhost_transport.loadtest.recorder import Metric, Recording, SendSecond
from selfhost_transport.loadtest.result import Measure, RoleUsage, RunResult, Snapshot
from selfhost_transport.loadtest.thresholds import GENERATOR_ROLE
from selfhost_transport.loadtest.usage import Sample, Sampler, cpu_between
from selfhost_transport.loadtest.window import Window

# One generator process that is busy this much of the time is late by itself.
_BUSY_CORES = 0.9
# The generator's own lateness may be this share of the p99 it reports.
_LAG_SHARE = 0.5
_LAG_FLOOR_MS = 5.0


def fill(result: RunResult, recording: Recording, window: Window, sampler: Sampler) -> None:
    """Put everything measured into the result."""
    result.measured_s = window.end - window.begin
    inside = {
        second: found for second, found in recording.seconds.items() if window.begin - 1 < second < window.end
    }
    result.tokens = sum(found.tokens for found in inside.values())
    result.frames = sum(found.frames for found in inside.values())
    result.tokens_per_s = result.tokens / result.measured_s
    result.expected_tokens_per_s = _expected(result.load)
    for metric, encoded in recording.histograms.items():
        result.measures[metric] = Measure(Histogram.decode(encoded).summary(), encoded)
    result.outcomes = recording.outcomes
    result.counters = recording.counters
    result.violation_counts = recording.violation_counts
    result.violations = recording.violations
    result.errors = recording.errors
    result.model_usage = recording.usage
    result.usage = _usage(result, window, sampler)
    result.moments = _moments(recording, window, sampler)
    result.clock_note = _clock_note(recording.clock_uncertainty_s)
    result.generator_limit = _generator_limit(result)


def _clock_note(uncertainty_s: float) -> str:
    note = (
        f"Sockets are read every {ROUND_S * 1e3:g} ms: an arrival is seen up to that much late. Positions carry whole "
        "milliseconds: times from a position are over by up to 1 ms more."
    )
    if uncertainty_s:
        note += f" The deployment's clock was estimated to within {uncertainty_s * 1e3:.1f} ms."
    return note


def _expected(load: Load) -> float:
    """Tokens per second at all viewers when every turn is on schedule; 0 where cancels make it uncertain."""
    if (
        load.any_text
        or load.cancel_percent
        or load.scenario
        not in (
            Scenario.STEADY,
            Scenario.RAMP,
            Scenario.HERD,
            Scenario.NOISY,
        )
    ):
        return 0.0
    return load.turns * load.viewers * load.tokens / (load.turn_s + load.pause_s)


def _usage(result: RunResult, window: Window, sampler: Sampler) -> dict[str, RoleUsage]:
    first, last = sampler.near(window.begin), sampler.near(window.end)
    if first is None or last is None or last.at <= first.at:
        return {}
    seconds = last.at - first.at
    # Samples do not fall on the ends of the window: tokens at the measured rate over the sampled time.
    tokens = result.tokens_per_s * seconds
    return {
        role: RoleUsage(
            cores=cpu_s / seconds,
            us_per_token=cpu_s * 1e6 / tokens if tokens else 0.0,
            rss_before=sampler.samples[0].roles[role].rss if role in sampler.samples[0].roles else 0,
            rss_after=last.roles[role].rss,
            processes=last.roles[role].processes,
            wakes_per_s=max(0.0, (last.roles[role].wakes - first.roles[role].wakes) / seconds),
        )
        for role, cpu_s in cpu_between(first, last).items()
    }


def _moments(recording: Recording, window: Window, sampler: Sampler) -> list[Snapshot]:
    moments = []
    for second in sorted({*recording.seconds, *_measured(recording, window)}):
        found = recording.seconds.get(second)
        latency = Summary() if found is None else Histogram.decode(found.token).summary()
        sends = recording.sends.get(second, SendSecond())
        before, after = sampler.near(second), sampler.near(second + 1)
        moments.append(
            Snapshot(
                at=math.floor(second - window.begin),
                tokens=0 if found is None else found.tokens,
                p50=latency.p50,
                p99=latency.p99,
                max=latency.max,
                cpu=_cores(before, after),
                memory={} if after is None else {role: usage.rss for role, usage in after.roles.items()},
                offered=sends.offered,
                shed=sends.shed,
                ended=sends.ended,
                first_token_p99=percentile_ms(sends.first_tokens, 99),
            )
        )
    return moments


def _measured(recording: Recording, window: Window) -> list[int]:
    """Whole seconds of the window in which something was sent, or ended."""
    return [second for second in recording.sends if window.begin <= second < window.end - 1]


def percentile_ms(seconds: list[float], percent: float) -> float:
    """A percentile of a few durations, in milliseconds; 0 of none."""
    if not seconds:
        return 0.0
    return sorted(seconds)[math.ceil(len(seconds) * percent / 100) - 1] * 1e3


def _cores(before: Sample | None, after: Sample | None) -> dict[str, float]:
    if before is None or after is None or after.at <= before.at:
        return {}
    seconds = after.at - before.at
    return {role: cpu_s / seconds for role, cpu_s in cpu_between(before, after).items()}


def _generator_limit(result: RunResult) -> str:
    usage = result.usage.get(GENERATOR_ROLE)
    processes = result.load.generator_processes
    if usage is not None and usage.cores >= _BUSY_CORES * processes:
        return f"its {processes} process(es) used {usage.cores:.2f} cores: use more processes, or another machine"
    lag, token = result.summary(Metric.LAG), result.summary(Metric.TOKEN)
    if lag.p99 > _LAG_FLOOR_MS and token.count and lag.p99 > token.p99 * _LAG_SHARE:
        return (
            f"its own timers were late by {lag.p99:.1f} ms (p99), which is in the latencies: the machine is "
            "full, or the generator needs more processes"
        )
    return ""
