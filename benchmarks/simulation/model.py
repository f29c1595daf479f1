"""The way of every token on one machine: model, worker, Redis, gateway, viewer. As `loadtest --local` measures it."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import simpy

from benchmarks.simulation.machine import Machine, Station, Steps
from benchmarks.simulation.units import ROLES, RoleCost, Units

_US = 1e-6
# A gateway's fan-out returns to its event loop after so long (gateway/fanout/inbox.py).
_GATEWAY_SLICE_S = 0.002
# The viewers read once in a millisecond, at most so many sockets (loadtest/poller.py).
_ROUND_S, _AT_ONCE = 0.001, 256
_REST_PERIOD_S = 0.05
# An event loop sleeps whole milliseconds: tokens that are due within one share a wake-up.
_CLOCK_S = 0.001
# First sends are spread over so much of the time before measuring (loadtest/plan.py).
_SPREAD = 0.75


@dataclass(frozen=True, slots=True)
class SimulatedLoad:
    """Turns at once, each of so many tokens at a rate per second; seconds before measuring, and measured.

    `workers`, `gateways`: processes that the turns are spread over; there is one Redis.
    """

    turns: int
    rate: float = 50.0
    tokens: int = 200
    warmup_s: float = 3.0
    duration_s: float = 3.0
    workers: int = 1
    gateways: int = 1


@dataclass(slots=True)
class Chunk:
    """An append: its turn, and when each of its tokens was due. Without tokens: the beginning of a turn."""

    turn: int
    due: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What viewers saw: latencies of tokens in ms, tokens per second, and the cores that each role needed."""

    p50: float
    p99: float
    tokens_per_s: float
    due_per_s: float
    appends_per_s: float
    cores: dict[str, float]
    wakes_per_s: dict[str, float]


def cost_of(cost: RoleCost, chunks: list[Chunk]) -> float:
    """Seconds of CPU that a role needs for chunks."""
    us = 0.0
    for chunk in chunks:
        us += cost.append + cost.token * len(chunk.due) if chunk.due else cost.turn
    return us * _US


class _Worker:
    """Runs the models' clocks, gathers tokens for a window, and sends what is due on a tick."""

    def __init__(self, simulation: Simulation, cost: RoleCost) -> None:
        self._simulation = simulation
        self._cost = cost
        self._units = simulation.units
        # (when, turn, number of the token) and (tick, chunk)
        self._tokens: list[tuple[float, int, int]] = []
        self._ticks: dict[int, list[Chunk]] = {}
        self._due_ticks: list[int] = []
        self._gathering: dict[int, Chunk] = {}
        self._begun: list[Chunk] = []
        self._changed: simpy.Event | None = None
        self.busy_s = 0.0
        self.wakes = 0
        simulation.env.process(self._run())

    def take(self, chunks: list[Chunk]) -> None:
        """What comes from Redis: turns to begin, and replies to appends, which only wake it."""
        self._begun += [chunk for chunk in chunks if not chunk.due]
        if self._changed is not None and not self._changed.triggered:
            self._changed.succeed()

    def _run(self) -> Steps:
        env, machine = self._simulation.env, self._simulation.machine
        while True:
            if not self._is_due(env.now):
                self._changed = env.event()
                sleep_s = self._next_at() - env.now
                if math.isinf(sleep_s):
                    yield self._changed
                else:
                    yield self._changed | env.timeout(math.ceil(sleep_s / _CLOCK_S) * _CLOCK_S)
                self.wakes += 1
                self.busy_s += self._cost.wake * _US
                yield from machine.work(self._cost.wake * _US)
            spent_s, leaving = self._step(env.now)
            self.busy_s += spent_s
            yield from machine.work(spent_s)
            if leaving:
                self._simulation.send(self._simulation.redis, leaving)

    def _next_at(self) -> float:
        first = self._tokens[0][0] if self._tokens else math.inf
        tick = self._due_ticks[0] * self._tick_s if self._due_ticks else math.inf
        return min(first, tick)

    @property
    def _tick_s(self) -> float:
        return self._units.tick_ms / 1e3

    def _is_due(self, now: float) -> bool:
        return bool(self._begun) or self._next_at() <= now

    def _step(self, now: float) -> tuple[float, list[Chunk]]:
        """Everything that is due: the CPU it needs, and the appends that leave."""
        us = len(self._begun) * self._cost.turn
        for chunk in self._begun:
            heapq.heappush(self._tokens, (now, chunk.turn, 0))
        self._begun = []
        simulation = self._simulation
        while self._tokens and self._tokens[0][0] <= now:
            due, turn, number = heapq.heappop(self._tokens)
            us += self._cost.token
            self._gather(turn, due, now)
            if number + 1 < simulation.tokens_of[turn]:
                heapq.heappush(self._tokens, (due + 1 / simulation.load.rate, turn, number + 1))
        leaving: list[Chunk] = []
        while self._due_ticks and self._due_ticks[0] * self._tick_s <= now:
            leaving += self._ticks.pop(heapq.heappop(self._due_ticks))
        for chunk in leaving:
            self._gathering.pop(chunk.turn, None)
        return (us + len(leaving) * self._cost.append) * _US, leaving

    def _gather(self, turn: int, due: float, now: float) -> None:
        gathering = self._gathering.get(turn)
        if gathering is not None:
            gathering.due.append(due)
            return
        chunk = self._gathering[turn] = Chunk(turn, [due])
        tick = int((now + self._units.window_ms / 1e3) / self._tick_s) + 1
        if tick not in self._ticks:
            self._ticks[tick] = []
            heapq.heappush(self._due_ticks, tick)
        self._ticks[tick].append(chunk)


class Simulation:
    """One run. The same seed gives the same run."""

    def __init__(self, units: Units, load: SimulatedLoad, seed: int) -> None:
        self.units, self.load = units, load
        self.env = simpy.Environment()
        self.machine = Machine(self.env, units.cores)
        self._random = random.Random(seed)
        self._latencies: list[float] = []
        self._frames = 0
        # Of each person's present turn.
        self.tokens_of = [0] * load.turns
        costs = units.roles
        self.workers = [_Worker(self, costs["worker"]) for _ in range(load.workers)]
        self.viewers = self._station("generator", self._arrived, _AT_ONCE, _ROUND_S)
        most = max(1, int(_GATEWAY_SLICE_S / max(_US, costs["gateway"].append * _US)))
        self.gateways = [self._station("gateway", self._fanned_out, most) for _ in range(load.gateways)]
        self.redis = self._station("redis", self._written, units.redis_batch)
        self.env.process(self._rest())

    def run(self) -> Outcome:
        """Simulate, and say what was seen."""
        load = self.load
        for turn in range(load.turns):
            self.env.process(self._person(turn))
        self.env.run(load.warmup_s)
        roles: dict[str, list[Station[Chunk] | _Worker]] = {
            "generator": [self.viewers],
            "gateway": [*self.gateways],
            "redis": [self.redis],
            "worker": [*self.workers],
        }
        before = _used(roles)
        self._latencies.clear()
        self._frames = 0
        self.env.run(load.warmup_s + load.duration_s)
        seen, after = sorted(self._latencies), _used(roles)
        return Outcome(
            _percentile(seen, 50) * 1e3,
            _percentile(seen, 99) * 1e3,
            len(seen) / load.duration_s,
            load.turns * load.rate,
            self._frames / load.duration_s,
            *(
                {role: (after[role][of] - before[role][of]) / load.duration_s for role in ROLES}
                for of in (0, 1)
            ),
        )

    def send(self, to: Station[Chunk], chunks: list[Chunk]) -> None:
        """Chunks on their way to another process."""
        self._later(partial(to.put_all, chunks))

    def _later(self, call: partial[None]) -> None:
        callbacks = self.env.timeout(self.units.hop_us * _US).callbacks
        assert callbacks is not None
        callbacks.append(lambda _: call())

    def _station(
        self, role: str, pass_on: Callable[[list[Chunk]], None], most: int, pause_s: float = 0.0
    ) -> Station[Chunk]:
        cost = self.units.roles[role]
        cost_s = partial(cost_of, cost)
        return Station(self.machine, cost_s, pass_on, wake_s=cost.wake * _US, most=most, pause_s=pause_s)

    def _person(self, turn: int) -> Steps:
        """Sends on schedule, whatever became of the turn before. The first turns have all lengths."""
        load = self.load
        yield self.env.timeout(self._random.uniform(0, load.warmup_s * _SPREAD))
        tokens = self._random.randint(1, load.tokens)
        while True:
            self.tokens_of[turn] = tokens
            self._announce([Chunk(turn)])
            yield self.env.timeout(tokens / load.rate)
            tokens = load.tokens

    def _written(self, chunks: list[Chunk]) -> None:
        """By Redis: appends are announced to the gateway, turns to the worker."""
        announced = [chunk for chunk in chunks if chunk.due]
        self._announce(announced)
        for number, own in _by_process(chunks, len(self.workers)):
            self._later(partial(self.workers[number].take, own))

    def _announce(self, chunks: list[Chunk]) -> None:
        """To the gateways of their viewers."""
        for number, own in _by_process(chunks, len(self.gateways)):
            self.send(self.gateways[number], own)

    def _fanned_out(self, chunks: list[Chunk]) -> None:
        frames = [chunk for chunk in chunks if chunk.due]
        if frames:
            self.send(self.viewers, frames)
        sends = [chunk for chunk in chunks if not chunk.due]
        if sends:
            self.send(self.redis, sends)

    def _arrived(self, chunks: list[Chunk]) -> None:
        now = self.env.now
        self._frames += len(chunks)
        self._latencies += [now - due for chunk in chunks for due in chunk.due]

    def _rest(self) -> Steps:
        """What else the machine does."""
        while self.units.rest > 0:
            yield self.env.timeout(_REST_PERIOD_S)
            yield from self.machine.work(self.units.rest * _REST_PERIOD_S)


def _by_process(chunks: list[Chunk], processes: int) -> list[tuple[int, list[Chunk]]]:
    """Turns go round the processes."""
    found: dict[int, list[Chunk]] = {}
    for chunk in chunks:
        found.setdefault(chunk.turn % processes, []).append(chunk)
    return list(found.items())


def _used(roles: dict[str, list[Station[Chunk] | _Worker]]) -> dict[str, tuple[float, float]]:
    """Seconds of CPU, and how often it was woken, by role."""
    return {
        role: (sum(one.busy_s for one in processes), sum(one.wakes for one in processes))
        for role, processes in roles.items()
    }


def _percentile(ordered: list[float], percent: float) -> float:
    if not ordered:
        return math.inf
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]
