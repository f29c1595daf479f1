"""The simulation: the same for a seed, right where there is a formula, and of the machine that it was calibrated on."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import simpy

from benchmarks.simulation.fleet import ALL, Base, Fleet, shares, size
from benchmarks.simulation.knee import is_inside
from benchmarks.simulation.machine import Machine, Station, Steps
from benchmarks.simulation.model import SimulatedLoad, Simulation
from benchmarks.simulation.units import MeshCost, RoleCost, Units

SERVICE_S = 0.001
COSTS = Units(
    "",
    "",
    {
        "generator": RoleCost(10, 1, 8, 300),
        "gateway": RoleCost(20, 0, 10, 900),
        "redis": RoleCost(15, 0, 8, 500),
        "worker": RoleCost(10, 4, 10, 600),
    },
    MeshCost(6, 10, 5, 5, 11),
)
SMALL = SimulatedLoad(60, warmup_s=1.0, duration_s=1.0)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_queue_with_one_server_waits_as_long_as_the_formula_says(load: float) -> None:
    env, draw = simpy.Environment(), random.Random(7)
    waited: list[float] = []

    def left(came: list[float]) -> None:
        waited.extend(env.now - one - SERVICE_S for one in came)

    station = Station[float](Machine(env, 1), lambda came: SERVICE_S * len(came), left, most=1)

    def arrivals() -> Steps:
        while True:
            yield env.timeout(draw.expovariate(load / SERVICE_S))
            station.put(env.now)

    env.process(arrivals())
    env.run(30)
    # M/D/1 (Pollaczek and Khinchine)
    expected = load * SERVICE_S / (2 * (1 - load))
    assert sum(waited) / len(waited) == pytest.approx(expected, rel=0.05)


def test_processes_that_want_more_than_there_is_get_equal_shares() -> None:
    env = simpy.Environment()
    machine, ended = Machine(env, 2), list[float]()

    def busy(seconds: float) -> Steps:
        yield from machine.work(seconds)
        ended.append(env.now)

    for seconds in (0.1, 0.1, 0.1, 0.1):
        env.process(busy(seconds))
    env.run()
    assert ended == pytest.approx([0.2] * 4, abs=0.003)


def test_a_seed_gives_one_run_and_another_seed_another() -> None:
    runs = [Simulation(COSTS, SMALL, seed).run() for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


def test_tokens_are_gathered_and_arrive_at_their_rate() -> None:
    seen = Simulation(COSTS, SMALL, 1).run()
    assert seen.tokens_per_s == pytest.approx(seen.due_per_s, rel=0.02)
    # Two or three tokens of 20 ms in a window of 40 that ends on a tick of 5.
    assert 2 < seen.tokens_per_s / seen.appends_per_s < 3.2
    assert 20 < seen.p50 < 30 and 40 < seen.p99 < 50


def test_cost_decides_how_much_is_carried() -> None:
    dear = replace(COSTS, roles={**COSTS.roles, "gateway": RoleCost(20, 0, 1000, 900)})
    load = replace(SMALL, turns=100)
    assert is_inside(Simulation(COSTS, load, 1).run())
    assert not is_inside(Simulation(dear, load, 1).run())


def test_the_measured_knee_is_reproduced() -> None:
    units = Units.load()
    assert units.measured_knee
    carried = Simulation(units, SimulatedLoad(round(units.measured_knee * 0.85)), 1).run()
    too_much = Simulation(units, SimulatedLoad(round(units.measured_knee * 1.15)), 1).run()
    assert is_inside(carried) and not is_inside(too_much)


def test_what_all_workers_do_for_each_turn_has_no_fleet_that_is_large_enough() -> None:
    base = Base({"worker": 8e-4, "redis": 1e-4, "gateway": 4e-4}, 20, 10)
    one = shares(COSTS, base, Fleet(500, 1, 1, 1))
    assert {tier: share.mesh + share.herd for tier, share in one.items()} == {
        "worker": 0,
        "redis": 0,
        "gateway": 0,
    }
    fleet = size(COSTS, base, 50_000)
    assert fleet is not None
    assert all(share.total <= 0.51 for share in shares(COSTS, base, fleet).values())
    assert size(COSTS, base, 1_000_000, called=ALL) is None
    assert size(COSTS, base, 1_000_000) is not None


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    COSTS.save(tmp_path / "units.json")
    assert Units.load(tmp_path / "units.json") == COSTS
