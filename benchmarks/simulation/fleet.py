"""How many processes a number of turns needs, and what they cost each other: the base of one alone, the mesh, the herd.

Base: what a process costs that has one of each kind beside it. Mesh: the more servers there are, the fewer appends share a
system call, until each travels alone. Herd: a new turn calls more workers than one, and all that are called look for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from benchmarks.simulation.model import SimulatedLoad, Simulation
from benchmarks.simulation.units import Units

HALF = 0.5
"""How busy each process is to be."""
MAX_CLIENTS = 10_000
"""Connections that a Redis server takes by default."""
_US = 1e-6
_LINKS = 2
"""Connections of a process to each server: calls, and notifications."""
# Workers that a new turn calls (store/scripts/_calling.lua), and all of them, as before.
CALLED, ALL = 2, 1 << 30
_ROUNDS = 200
# Turns of the first run that looks for half a core, of the largest, runs of a tier, and how close is enough.
_FIRST, _MOST, _TRIES, _CLOSE = 400, 5000, 3, 0.1
_SEED = 1
TIERS = ("worker", "redis", "gateway")


@dataclass(frozen=True, slots=True)
class Base:
    """Cores of each tier for one turn, as such a process costs when it is half busy; appends of a turn per second."""

    cores: dict[str, float]
    appends_per_s: float
    turn_s: float

    @classmethod
    def of(cls, units: Units, load: SimulatedLoad) -> Base:
        """Simulated with cores enough, so that no one waits for one."""
        roomy = replace(units, cores=64, rest=0.0)
        cores, appends, turns, of_a_worker = {}, 0.0, _FIRST, 0
        for tier in TIERS:
            for _ in range(_TRIES):
                workers = math.ceil(turns / of_a_worker) if of_a_worker else 1
                seen = Simulation(roomy, replace(load, turns=turns, workers=workers), _SEED).run()
                cores[tier], appends = seen.cores[tier] / turns, seen.appends_per_s / turns
                if abs(seen.cores[tier] / HALF - 1) < _CLOSE:
                    break
                turns = min(_MOST, max(1, round(turns * HALF / seen.cores[tier])))
            of_a_worker = of_a_worker or turns
        return cls(cores, appends, load.tokens / load.rate)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Processes for so many turns. `called`: workers that a new turn calls."""

    turns: int
    workers: int
    redis: int
    gateways: int
    called: int = CALLED

    @property
    def connections_per_redis(self) -> int:
        """To each server."""
        return _LINKS * (self.workers + self.gateways)

    @property
    def cores(self) -> int:
        """All of it."""
        return self.workers + self.redis + self.gateways

    def count(self, tier: str) -> int:
        """Processes of a tier."""
        return {"worker": self.workers, "redis": self.redis, "gateway": self.gateways}[tier]


@dataclass(frozen=True, slots=True)
class Use:
    """Cores of one process of a tier."""

    base: float
    mesh: float
    herd: float

    @property
    def total(self) -> float:
        """How busy it is."""
        return self.base + self.mesh + self.herd


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one process of a fleet sees, per second."""

    appends: float
    begins: float
    # Of a worker: calls for turns that another one takes.
    calls_in_vain: float
    # Of a worker's tick: appends, and the servers that they go to.
    appends_per_tick: float
    servers_per_tick: float
    ticks: float

    @classmethod
    def of(cls, units: Units, base: Base, fleet: Fleet) -> Traffic:
        """Of the whole fleet."""
        appends, ticks = fleet.turns * base.appends_per_s, 1e3 / units.tick_ms
        per_tick = appends / fleet.workers / ticks
        servers = (
            fleet.redis * (1 - (1 - 1 / fleet.redis) ** per_tick) if fleet.redis > 1 else min(1.0, per_tick)
        )
        begins = fleet.turns / base.turn_s
        in_vain = begins * (min(fleet.called, fleet.workers) - 1) / fleet.workers
        return cls(appends, begins, in_vain, per_tick, servers, ticks)


def shares(units: Units, base: Base, fleet: Fleet) -> dict[str, Use]:
    """How busy a process of each tier is, and with what."""
    mesh, seen = units.mesh, Traffic.of(units, base, fleet)
    # A process that has one server has one socket to it: what it costs is in the base.
    extra = max(0.0, seen.servers_per_tick - 1)
    meshed = fleet.redis > 1
    alone = 0.5 if meshed else 0.0
    look_us = mesh.empty_take_worker + 1.5 * mesh.process_socket
    asked_us = mesh.notice + mesh.empty_take_redis + mesh.redis_socket
    others = min(fleet.called, fleet.workers) - 1
    return {
        "worker": Use(
            base.cores["worker"] * fleet.turns / fleet.workers,
            seen.ticks * extra * mesh.process_socket * _US,
            seen.calls_in_vain * look_us * _US,
        ),
        "redis": Use(
            base.cores["redis"] * fleet.turns / fleet.redis,
            (
                fleet.workers * seen.ticks * seen.servers_per_tick * mesh.redis_socket
                + alone * seen.appends * mesh.redis_socket
            )
            / fleet.redis
            * _US
            * meshed,
            seen.begins / fleet.redis * others * asked_us * _US,
        ),
        "gateway": Use(
            base.cores["gateway"] * fleet.turns / fleet.gateways,
            alone * seen.appends / fleet.gateways * mesh.process_socket * _US,
            0.0,
        ),
    }


def size(units: Units, base: Base, turns: int, *, called: int = CALLED) -> Fleet | None:
    """The fleet in which each process is as busy as it should be; None: there is none, however many there are."""
    counts = {tier: max(1, math.ceil(turns * base.cores[tier] / HALF)) for tier in TIERS}
    for _ in range(_ROUNDS):
        fleet = Fleet(turns, counts["worker"], counts["redis"], counts["gateway"], called)
        found = shares(units, base, fleet)
        # What every process pays alike leaves less of each for its share of the work.
        if found["worker"].herd >= HALF or max(counts.values()) > turns:
            return None
        wanted = {
            "worker": math.ceil(counts["worker"] * (found["worker"].base + found["worker"].mesh) / (HALF - found["worker"].herd)),
            "redis": math.ceil(counts["redis"] * found["redis"].total / HALF),
            "gateway": math.ceil(counts["gateway"] * found["gateway"].total / HALF),
        }  # fmt: skip
        if all(abs(wanted[tier] - counts[tier]) <= max(1, counts[tier] // 200) for tier in TIERS):
            return fleet
        counts = {tier: max(1, wanted[tier]) for tier in TIERS}
    return None
