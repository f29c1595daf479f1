"""A result made up for the tests of what is done with results."""

from __future__ import annotations

from dataclasses import replace

from selfhost_transport.loadtest.histogram import Histogram
from selfhost_transport.loadtest.plan import Load
from selfhost_transport.loadtest.recorder import Metric, Violation, ViolationKind
from selfhost_transport.loadtest.result import (
    Environment,
    Measure,
    RampStep,
    RoleUsage,
    RunResult,
    Snapshot,
    new_result,
)


def a_result(*, slower: float = 1.0) -> RunResult:
    result = new_result("run", Load(), replace(Environment.here(), gateways=1, workers=2, redis="7.0"))
    histogram = Histogram()
    for number in range(1, 200):
        histogram.record(number * slower / 1e3)
    for metric in Metric:
        result.measures[metric] = Measure(histogram.summary(), histogram.encode())
    result.measured_s, result.tokens, result.tokens_per_s, result.frames = 10.0, 1000, 100.0, 500
    result.expected_tokens_per_s = 101.0
    result.moments = [
        Snapshot(at, 100, 1.0, 2.0, 3.0, {"gateway": 0.5, "redis": 0.1}, {"gateway": 10**7})
        for at in range(10)
    ]
    result.usage = {"gateway": RoleUsage(0.5, 20.0 * slower, 10**7, 2 * 10**7, 1)}
    result.outcomes = {"complete": 5, "cancelled": 2}
    result.counters = {"turns_sent": 7, "lost_sockets": 1}
    result.redis_bytes_per_turn = 1234.0
    result.steps = [
        RampStep(100, 5000.0, 1.0, 2.0, True),
        RampStep(200, 9000.0, 30.0, 200.0, False, "p99 <over>"),
    ]
    return result


A_VIOLATION = Violation(ViolationKind.LOST, "loadtest:<script>", "turn", "token 3 was due")
