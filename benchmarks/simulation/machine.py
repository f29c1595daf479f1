"""Processes that take turns on the cores of a machine. Times in seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

import simpy

SLICE_S = 0.001
"""How long a process keeps a core while others wait for one."""

Item = TypeVar("Item")
Steps = Generator[simpy.Event, object, None]


class Machine:
    """So many cores, given to the process that waited longest, for a slice at a time."""

    def __init__(self, env: simpy.Environment, cores: int, slice_s: float = SLICE_S) -> None:
        self.env = env
        self._cores = simpy.Resource(env, cores)
        self._slice_s = slice_s

    def work(self, seconds: float) -> Steps:
        """Use so much CPU."""
        while seconds > 0:
            with self._cores.request() as core:
                yield core
                spent = min(seconds, self._slice_s) if self._cores.queue else seconds
                # A process that comes meanwhile waits for the end of the slice.
                spent = min(spent, self._slice_s)
                yield self.env.timeout(spent)
            seconds -= spent


class Station(Generic[Item]):
    """A process that handles what has arrived, at most `most` items in a round, and passes each round on at its end.

    `wake_s`: CPU of being woken, which only a process that slept needs.
    """

    def __init__(
        self,
        machine: Machine,
        cost_s: Callable[[list[Item]], float],
        pass_on: Callable[[list[Item]], None],
        *,
        wake_s: float = 0.0,
        most: int = 1 << 30,
        pause_s: float = 0.0,
    ) -> None:
        self._machine = machine
        self._cost_s = cost_s
        self._pass_on = pass_on
        self._wake_s = wake_s
        self._most = most
        self._pause_s = pause_s
        self._queue: deque[Item] = deque()
        self._arrived: simpy.Event | None = None
        self.busy_s = 0.0
        self.wakes = 0
        machine.env.process(self._run())

    def put(self, item: Item) -> None:
        """An item arrives."""
        self._queue.append(item)
        if self._arrived is not None:
            self._arrived.succeed()
            self._arrived = None

    def put_all(self, items: list[Item]) -> None:
        """Several arrive at once."""
        for item in items:
            self.put(item)

    def _run(self) -> Steps:
        env = self._machine.env
        while True:
            if not self._queue:
                self._arrived = env.event()
                yield self._arrived
                self.wakes += 1
                self.busy_s += self._wake_s
                yield from self._machine.work(self._wake_s)
            batch = [self._queue.popleft() for _ in range(min(self._most, len(self._queue)))]
            cost_s = self._cost_s(batch)
            self.busy_s += cost_s
            yield from self._machine.work(cost_s)
            self._pass_on(batch)
            if self._pause_s:
                yield env.timeout(self._pause_s)
