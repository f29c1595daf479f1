"""The result of a run, as it is written to JSON and read back for a comparison."""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import msgspec

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.loadtest.histogram import Histogram, Summary
from selfhost_transport.loadtest.plan import Load, Prices
from selfhost_transport.loadtest.recorder import Metric, Violation

FORMAT = 1
"""Version of the JSON; a file of another is refused."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a run took place."""

    machine: str
    cores: int
    memory_bytes: int
    python: str
    version: str
    redis: str = ""
    gateways: int = 0
    workers: int = 0
    rollup_window_ms: int = -1

    @classmethod
    def here(cls) -> Environment:
        """This machine."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(
            f"{platform.system()} {platform.machine()}",
            os.cpu_count() or 0,
            memory,
            platform.python_version(),
            version("selfhost-transport"),
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric: figures in ms, and the whole histogram, encoded."""

    summary: Summary
    histogram: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One second of a run. `at`: seconds since the window began. Latencies from the schedule, in ms.

    `cpu` in cores and `memory` in bytes, by role.
    """

    at: int
    tokens: int
    p50: float
    p99: float
    max: float
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    # Sends: offered by the schedule, refused for later, turns that ended; the slowest of first tokens but one in a hundred.
    offered: int = 0
    shed: int = 0
    ended: int = 0
    first_token_p99: float = 0.0


@dataclass(frozen=True, slots=True)
class RoleUsage:
    """What a role cost: cores in use, microseconds of CPU per delivered token, resident bytes at start and end.

    `wakes_per_s`: how often its processes slept and were woken; waking is part of the cost, and rarer under load.
    """

    cores: float
    us_per_token: float
    rss_before: int
    rss_after: int
    processes: int
    wakes_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RampStep:
    """One load that a ramp tried."""

    turns: int
    tokens_per_s: float
    p50: float
    p99: float
    passed: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class OverloadStep:
    """One offered load: turns per second, milliseconds, and the most memory that each role had in it (bytes).

    `calm_first_token_p99`: after the load had fallen for two seconds; 0 where it did not fall.
    """

    factor: float
    round: int
    offered_per_s: float
    achieved_per_s: float
    shed_per_s: float
    first_token_p50: float
    first_token_p99: float
    refusal_p99: float
    generator_lag_p99: float
    memory: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    calm_first_token_p99: float = 0.0


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold: what was asked, what was seen."""

    name: str
    limit: float
    value: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Knee:
    """The most turns inside the budget, with how often they were (of so many runs), and the least that were not.

    `above` is 0 where the upper limit of the search was inside, `turns` where not even the smallest load was.
    """

    turns: int
    inside: int
    tried: int
    above: int = 0
    above_inside: int = 0
    above_tried: int = 0


@dataclass(slots=True)
class RunResult:
    """Everything about one run. `passed` is the exit status."""

    run: str
    started: str
    load: Load
    environment: Environment
    measured_s: float = 0.0
    tokens: int = 0
    tokens_per_s: float = 0.0
    expected_tokens_per_s: float = 0.0
    frames: int = 0
    measures: dict[str, Measure] = field(default_factory=dict)
    moments: list[Snapshot] = field(default_factory=list)
    usage: dict[str, RoleUsage] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    violation_counts: dict[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    redis_bytes_per_turn: float = 0.0
    bytes_per_connection: float = 0.0
    clock_note: str = ""
    # Why the figures say more about the generator than about the deployment; empty when they do not.
    generator_limit: str = ""
    steps: list[RampStep] = field(default_factory=list)
    overload: list[OverloadStep] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    # What the run was called, and the command line without credentials.
    name: str = ""
    command: str = ""
    # Turns that failed or were refused, by what was said of it.
    errors: dict[str, int] = field(default_factory=dict)
    # Tokens that agents reported (`input`, `output`, and `turns` that reported any), and what they cost by the prices given.
    model_usage: dict[str, int] = field(default_factory=dict)
    prices: Prices | None = None
    knee: Knee | None = None
    format: int = FORMAT

    @property
    def passed(self) -> bool:
        """No violation, and every threshold kept."""
        return not self.violation_counts and all(check.passed for check in self.checks)

    @property
    def error_percent(self) -> float:
        """Turns that failed or were refused, per cent of those sent."""
        sent = self.counters.get("turns_sent", 0)
        return 100 * sum(self.errors.values()) / sent if sent else 0.0

    @property
    def cost(self) -> float:
        """What the reported tokens cost; 0 without prices or reports."""
        if self.prices is None:
            return 0.0
        used = self.model_usage
        return (used.get("input", 0) * self.prices.input + used.get("output", 0) * self.prices.output) / 1e6

    def cpu_s_per_1000_turns(self, role: str) -> float:
        """CPU seconds of a role for a thousand turns like those of this run; 0 where it was not measured."""
        usage = self.usage.get(role)
        if usage is None or self.load.turn_s <= 0:
            return 0.0
        delivered = self.load.tokens * self.load.viewers
        return usage.us_per_token * delivered / 1e3

    def summary(self, metric: Metric) -> Summary:
        """The figures of a metric; zeros when nothing was recorded."""
        measure = self.measures.get(metric)
        return Summary() if measure is None else measure.summary

    def histogram(self, metric: Metric) -> Histogram:
        """The histogram of a metric; empty when nothing was recorded."""
        measure = self.measures.get(metric)
        return Histogram() if measure is None else Histogram.decode(measure.histogram)

    def save(self, path: Path) -> None:
        """Write JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))

    @classmethod
    def load_file(cls, path: Path) -> RunResult:
        """Read what `save` wrote. Raises InvalidArgument."""
        try:
            result = msgspec.json.decode(path.read_bytes(), type=cls)
        except OSError as error:
            raise InvalidArgument(f"cannot read {path}: {error.strerror}") from error
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"{path} is not the result of a load test: {error}") from error
        if result.format != FORMAT:
            raise InvalidArgument(f"{path} was written by another version (format {result.format})")
        return result


def new_result(run: str, load: Load, environment: Environment) -> RunResult:
    """An empty result that starts now."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return RunResult(run, now, load, environment)
