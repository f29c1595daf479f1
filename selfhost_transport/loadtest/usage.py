"""CPU and memory of the processes under test, by role, from the operating system."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import psutil


@dataclass(frozen=True, slots=True)
class RoleSample:
    """A role at one moment: CPU seconds since its processes started, resident bytes, number of processes.

    `wakes`: how often their main threads slept and were woken; 0 where the system does not say.
    """

    cpu_s: float
    rss: int
    processes: int
    wakes: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """All roles at one moment; `at` in seconds since the epoch."""

    at: float
    roles: dict[str, RoleSample]


@dataclass(slots=True)
class Sampler:
    """Samples the processes of each role and their children. What a process that is gone has used stays counted."""

    pids: dict[str, list[int]]
    samples: list[Sample] = field(default_factory=list)
    # CPU seconds by role and process, as last seen.
    _cpu_s: dict[str, dict[int, float]] = field(default_factory=dict)

    def sample(self) -> Sample:
        """Take a sample now and keep it."""
        found = Sample(time.time(), {role: self._usage(role, pids) for role, pids in self.pids.items()})
        self.samples.append(found)
        return found

    def near(self, moment: float) -> Sample | None:
        """The sample closest to a time; None when there are none."""
        return min(self.samples, key=lambda sample: abs(sample.at - moment), default=None)

    def _usage(self, role: str, pids: Iterable[int]) -> RoleSample:
        used = self._cpu_s.setdefault(role, {})
        rss, count, wakes = 0, 0, 0
        for process in _families(pids):
            with suppress(psutil.Error):
                with process.oneshot():
                    times = process.cpu_times()
                    memory = process.memory_info()
                    wakes += process.num_ctx_switches().voluntary
                used[process.pid] = times.user + times.system
                rss += memory.rss
                count += 1
        return RoleSample(sum(used.values()), rss, count, wakes)


def _families(pids: Iterable[int]) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def cpu_between(first: Sample, last: Sample) -> Mapping[str, float]:
    """CPU seconds used by each role between two samples."""
    return {
        role: max(0.0, usage.cpu_s - first.roles[role].cpu_s)
        for role, usage in last.roles.items()
        if role in first.roles
    }
