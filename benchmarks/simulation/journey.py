"""How long a token travels in a fleet: one process of each tier is simulated, and the others are its traffic.

What comes from many processes that know nothing of each other comes at random (Poisson), so one process of each tier stands
for all. Times in seconds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import simpy

from benchmarks.simulation.fleet import Base, Fleet, Traffic, Use, shares
from benchmarks.simulation.machine import Machine, Station, Steps
from benchmarks.simulation.model import SimulatedLoad
from benchmarks.simulation.units import Units

_SIMULATED_S = 2.0
_SAMPLES = 20_000
NETWORK_S = 0.0002
"""From machine to machine, one way."""


@dataclass(frozen=True, slots=True)
class _Visit:
    came: float
    cost_s: float
    # Whether it is an append; other work only stands in its way.
    counts: bool = True


class _Process:
    """A process with a core of its own, and what came to it: remembers how long appends stayed."""

    def __init__(self) -> None:
        self.env = simpy.Environment()
        self.stayed: list[float] = []
        self._station = Station(Machine(self.env, 1), _sum, self._left)

    def feed(self, rate: float, draw: random.Random, visits: Callable[[float], list[_Visit]]) -> None:
        """Something comes at random, so often a second."""
        if rate > 0:
            self.env.process(self._come(rate, draw, visits))

    def put(self, visit: _Visit) -> None:
        """It comes now."""
        self._station.put(visit)

    def run(self) -> list[float]:
        """Simulate; how long each append stayed."""
        self.env.run(_SIMULATED_S)
        return self.stayed

    def _come(self, rate: float, draw: random.Random, visits: Callable[[float], list[_Visit]]) -> Steps:
        while True:
            yield self.env.timeout(draw.expovariate(rate))
            self._station.put_all(visits(self.env.now))

    def _left(self, visits: list[_Visit]) -> None:
        self.stayed += [self.env.now - visit.came for visit in visits if visit.counts]


def _sum(visits: list[_Visit]) -> float:
    return sum(visit.cost_s for visit in visits)


def token_p99_ms(units: Units, base: Base, fleet: Fleet, load: SimulatedLoad, seed: int) -> float:
    """From when a token was due to its viewer, in ms."""
    found, seen, draw = shares(units, base, fleet), Traffic.of(units, base, fleet), random.Random(seed)
    worker = _worker(found["worker"], seen, draw)
    server = _spread(
        found["redis"],
        seen.appends / fleet.redis,
        max(1.0, seen.appends_per_tick / seen.servers_per_tick),
        draw,
    )
    gateway = _spread(found["gateway"], seen.appends / fleet.gateways, 1.0, draw)
    window_s, gap_s = units.window_ms / 1e3, 1 / load.rate
    trips = 3 * (NETWORK_S + units.hop_us * 1e-6)
    times = []
    for _ in range(_SAMPLES):
        gathered = window_s + draw.uniform(0, units.tick_ms / 1e3)
        waited = gathered - draw.randint(0, int(gathered / gap_s)) * gap_s
        times.append(waited + trips + draw.choice(worker) + draw.choice(server) + draw.choice(gateway))
    return sorted(times)[math.ceil(_SAMPLES * 0.99) - 1] * 1e3


def _worker(share: Use, seen: Traffic, draw: random.Random) -> list[float]:
    """A worker: on each tick its appends, and between them what new turns make it do."""
    process = _Process()
    per_append = (share.base + share.mesh) / seen.ticks / max(1.0, seen.appends_per_tick)

    def tick() -> Steps:
        while True:
            yield process.env.timeout(1 / seen.ticks)
            count = max(1, round(draw.gauss(seen.appends_per_tick, math.sqrt(seen.appends_per_tick))))
            for _ in range(count):
                process.put(_Visit(process.env.now, per_append))

    process.env.process(tick())
    if share.herd:
        cost_s = share.herd / seen.calls_in_vain
        process.feed(seen.calls_in_vain, draw, lambda now: [_Visit(now, cost_s, counts=False)])
    return process.run()


def _spread(share: Use, appends: float, together: float, draw: random.Random) -> list[float]:
    """A server or a gateway: appends in groups that come at random, and what new turns make it do."""
    process = _Process()
    cost_s = (share.base + share.mesh) / appends

    def group(now: float) -> list[_Visit]:
        return [_Visit(now, cost_s) for _ in range(max(1, round(draw.expovariate(1 / together))))]

    process.feed(appends / together, draw, group)
    if share.herd:
        herd_s = 5e-6
        process.feed(share.herd / herd_s, draw, lambda now: [_Visit(now, herd_s, counts=False)])
    return process.run()
