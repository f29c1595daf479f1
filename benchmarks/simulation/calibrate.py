"""Measures the costs of the parts: runs below the knee, and rounds of single operations. Takes about three minutes."""

from __future__ import annotations

import asyncio
import platform
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil

from benchmarks.figures import commit
from benchmarks.simulation.mesh import measure_mesh, measure_trip_us
from benchmarks.simulation.units import ROLES, RoleCost, Units
from benchmarks.whole import measure
from selfhost_transport.loadtest.plan import Load
from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.run import Watcher
from selfhost_transport.loadtest.window import Window

WINDOW_MS = 40
# Turns, tokens per second, tokens of a turn: half of the knee at most, with chunks of one, two and eight tokens, and with
# many short turns. Together they tell apart what is paid for waking, for a token, for an append and for a turn.
_LOADS = ((50, 50, 200), (150, 50, 200), (300, 50, 200), (400, 50, 200), (60, 200, 800), (100, 20, 80), (60, 50, 20))  # fmt: skip
_SECONDS = 5.0


@dataclass(slots=True)
class _MachineBusy(Watcher):
    """How many cores of the machine are busy in the window."""

    cores: float = 0.0
    _timers: list[threading.Timer] = field(default_factory=list)

    def running(self, window: Window) -> None:
        for at, call in ((window.begin, self._begin), (window.end, self._end)):
            timer = threading.Timer(max(0.0, at - time.time()), call)
            timer.daemon = True
            timer.start()
            self._timers.append(timer)

    def _begin(self) -> None:
        self._before, self._at = _busy_s(), time.monotonic()

    def _end(self) -> None:
        self.cores = (_busy_s() - self._before) / (time.monotonic() - self._at)

    _before: float = 0.0
    _at: float = 0.0


def _busy_s() -> float:
    """Processes of a lower priority only take what is left."""
    spent = psutil.cpu_times()
    return float(spent.user + spent.system + spent.irq + spent.softirq)


def calibrate() -> Units:
    """All costs. Raises RuntimeError when a run broke a promise."""
    runs, rest = [], []
    for turns, rate, tokens in _LOADS:
        watcher = _MachineBusy()
        load = Load(turns=turns, rate=rate, tokens=tokens, duration_s=_SECONDS, warmup_s=3.0)
        result = asyncio.run(measure(load, WINDOW_MS, watcher))
        runs.append(result)
        rest.append(watcher.cores - sum(result.usage[role].cores for role in ROLES))
        shown = ", ".join(
            f"{role} {result.usage[role].us_per_token:.1f} us {result.usage[role].wakes_per_s:,.0f}/s"
            for role in ROLES
        )
        print(f"{turns} x {rate} x {tokens}: {shown}; rest {rest[-1]:.3f} cores", flush=True)
    roles = {role: _fit(role, runs) for role in ROLES}
    trip_us = asyncio.run(measure_trip_us())
    return Units(
        commit=commit(),
        python=platform.python_version(),
        roles=roles,
        mesh=asyncio.run(measure_mesh()),
        rest=max(0.0, float(np.median(rest))),
        # There and back, without what either process works for a lone append.
        hop_us=max(0.0, trip_us - roles["redis"].wake - roles["redis"].append - roles["worker"].wake) / 2,
        window_ms=WINDOW_MS,
    )


def _fit(role: str, runs: Sequence[RunResult]) -> RoleCost:
    """The costs that explain the CPU of a role in all runs best, each run weighing the same; none is negative."""
    rows, cpu = [], []
    for run in runs:
        usage, seconds = run.usage[role], run.measured_s
        turns_per_s = run.load.turns / run.load.turn_s
        # Only the models and the viewers look at single tokens.
        tokens = run.tokens / seconds if role in ("worker", "generator") else 0.0
        rows.append([usage.wakes_per_s, tokens, run.frames / seconds, turns_per_s])
        cpu.append(usage.cores * 1e6)
    weights = 1 / np.array(cpu)
    found = _non_negative(np.array(rows) * weights[:, None], np.ones(len(cpu)))
    return RoleCost(*found)


def _non_negative(rows: np.ndarray, wanted: np.ndarray) -> list[float]:
    """Least squares without negative answers: those that would be are left out, the most negative first."""
    used = [column for column in range(rows.shape[1]) if rows[:, column].any()]
    while True:
        answer = np.linalg.lstsq(rows[:, used], wanted, rcond=None)[0]
        if answer.min() >= 0:
            break
        used.pop(int(answer.argmin()))
    found = dict(zip(used, answer, strict=True))
    return [float(found.get(column, 0.0)) for column in range(rows.shape[1])]
