"""Runs a plan: one run, or the runs of a ramp, with samples of the processes under test."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from selfhost_transport.loadtest.assemble import fill
from selfhost_transport.loadtest.fleet import LoadProcesses
from selfhost_transport.loadtest.generator import ShareProgress
from selfhost_transport.loadtest.knee import KneeSearch
from selfhost_transport.loadtest.overload import check_goodput, try_factors
from selfhost_transport.loadtest.plan import Load, Plan, Scenario, shares
from selfhost_transport.loadtest.recorder import Metric, Recording
from selfhost_transport.loadtest.result import Environment, OverloadStep, RampStep, RunResult, new_result
from selfhost_transport.loadtest.stack import LocalStack
from selfhost_transport.loadtest.thresholds import GENERATOR_ROLE, check_budget
from selfhost_transport.loadtest.usage import Sampler
from selfhost_transport.loadtest.window import Window

_LEAD_S = 0.5
# A load whose tokens do not all arrive in time is over the knee, whatever the latency of those that do.
_DELIVERED_SHARE = 0.97
_SEARCH_S = 8.0


class Watcher:
    """Receives the progress of a run; the terminal shows it."""

    def began(self, load: Load) -> None:
        """A run begins to connect."""

    def running(self, window: Window) -> None:
        """All are connected; the load starts."""

    def progress(self, progress: ShareProgress) -> None:
        """Several times a second."""

    def stepped(self, step: RampStep) -> None:
        """A ramp has tried a load."""

    def offered(self, step: OverloadStep) -> None:
        """An overload has tried a load."""


@dataclass(slots=True)
class Runner:
    """Runs plans against one deployment; `stack` is there when `--local` started it."""

    plan: Plan
    watcher: Watcher
    stack: LocalStack | None = None
    # Called once, in the middle of the measured window.
    _due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def run(self) -> RunResult:
        """The whole plan. Raises ServiceError when the load cannot be generated."""
        load, budget = self.plan.load, self.plan.budget
        match load.scenario:
            case Scenario.RAMP:
                result = self._ramp()
            case Scenario.OVERLOAD:
                result = try_factors(load, self.plan.overload, self._recorded, self.watcher.offered)
            case _:
                result = self._once(load)
        result.name, result.command, result.prices = self.plan.name, self.plan.command, self.plan.prices
        result.load = replace(result.load, prompts=())
        result.checks = [*check_budget(result, budget), *check_goodput(result.overload, budget.min_goodput)]
        return result

    def _once(self, load: Load) -> RunResult:
        return self._recorded(load)[0]

    def _recorded(self, load: Load) -> tuple[RunResult, Recording, Window]:
        result = new_result(secrets.token_hex(4), load, self._environment())
        pids = {} if self.stack is None else self.stack.pids
        sampler = Sampler(dict(pids))
        sampler.sample()
        memory = self._redis_memory()
        fleet = LoadProcesses(shares(replace(self.plan, load=load), result.run), self._tick(sampler))
        self.watcher.began(load)
        try:
            fleet.start()
            sampler.pids[GENERATOR_ROLE] = fleet.pids
            fleet.wait_ready()
            window = Window.of(load, time.time() + _LEAD_S)
            self._plan_fault(load, window)
            self.watcher.running(window)
            fleet.go(window.start)
            recording = fleet.wait_done()
        finally:
            fleet.stop()
        fill(result, recording, window, sampler)
        self._memory(result, memory)
        return result, recording, window

    def _ramp(self) -> RunResult:
        """Find the knee; the result is that of the best run of the highest load that was inside the budget."""
        search = KneeSearch(self.plan.load.turns, self.plan.max_turns)
        steps: list[RampStep] = []
        results: list[RunResult] = []
        while turns := search.next_turns():
            # People are as many as the load has turns.
            tried = replace(self.plan.load, turns=turns, duration_s=_step_s(self.plan.load), people=())
            results.append(self._once(tried))
            steps.append(self._judge(results[-1]))
            self.watcher.stepped(steps[-1])
            search.note(turns, steps[-1].passed)
        knee = search.knee()
        wanted = [
            (step.p99, number)
            for number, step in enumerate(steps)
            if step.turns == knee.turns and step.passed
        ]
        found = results[min(wanted)[1]] if wanted else results[-1]
        found.steps, found.knee = steps, knee
        return found

    def _judge(self, result: RunResult) -> RampStep:
        latency = result.summary(Metric.TOKEN)
        why = ""
        if result.violation_counts:
            why = ", ".join(f"{count} x {kind}" for kind, count in result.violation_counts.items())
        elif result.tokens_per_s < result.expected_tokens_per_s * _DELIVERED_SHARE:
            why = f"{result.tokens_per_s:.0f} of {result.expected_tokens_per_s:.0f} tokens/s"
        elif latency.p99 > self.plan.knee_ms:
            why = f"p99 {latency.p99:.0f} ms is over {self.plan.knee_ms:g} ms"
        else:
            # The thresholds of the run are part of what a load has to keep.
            missed = [check for check in check_budget(result, self.plan.budget) if not check.passed]
            why = ", ".join(f"{check.name} {check.value:,.1f}, limit {check.limit:,.1f}" for check in missed)
        if why and result.generator_limit:
            why += f" (the generator was the limit: {result.generator_limit})"
        return RampStep(result.load.turns, result.tokens_per_s, latency.p50, latency.p99, not why, why)

    def _tick(self, sampler: Sampler) -> Callable[[ShareProgress], None]:
        def tick(progress: ShareProgress) -> None:
            sampler.sample()
            self.watcher.progress(progress)
            while self._due and time.time() >= self._due[0][0]:
                self._due.pop(0)[1]()

        return tick

    def _plan_fault(self, load: Load, window: Window) -> None:
        if load.scenario is Scenario.HERD and self.stack is not None:
            self._due.append((window.begin + load.duration_s / 3, self.stack.kill_gateway))

    def _memory(self, result: RunResult, before: int) -> None:
        """What stays in Redis of a turn (its live log included), and what a connection costs a gateway."""
        turns = sum(result.outcomes.values())
        if before and turns:
            result.redis_bytes_per_turn = (self._redis_memory() - before) / turns
        gateway = result.usage.get("gateway")
        if gateway is not None and gateway.rss_before:
            result.bytes_per_connection = (gateway.rss_after - gateway.rss_before) / result.load.connections

    def _redis_memory(self) -> int:
        return 0 if self.stack is None else self.stack.redis_memory()

    def _environment(self) -> Environment:
        here = Environment.here()
        if self.stack is None:
            return here
        options = self.stack.options
        return replace(
            here,
            redis=self.stack.redis_version(),
            gateways=options.gateways,
            workers=options.workers,
            rollup_window_ms=options.window_ms,
        )


def _step_s(load: Load) -> float:
    return min(load.duration_s, _SEARCH_S)
