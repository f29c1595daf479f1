"""The most turns inside a latency budget, simulated: with the search of the load generator."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.simulation.model import Outcome, SimulatedLoad, Simulation
from benchmarks.simulation.units import Units
from selfhost_transport.loadtest.knee import KneeSearch
from selfhost_transport.loadtest.result import Knee

KNEE_MS = 100.0
_DELIVERED = 0.97
_MOST = 16_384
Watcher = Callable[[int, Outcome], None]


def find_knee(units: Units, first: int, seed: int, watcher: Watcher = lambda turns, seen: None) -> Knee:
    """Double from `first` turns, bisect to a tenth, repeat with other seeds what decides."""
    search = KneeSearch(first, _MOST)
    while turns := search.next_turns():
        seed += 1
        seen = Simulation(units, SimulatedLoad(turns), seed).run()
        watcher(turns, seen)
        search.note(turns, is_inside(seen))
    return search.knee()


def is_inside(seen: Outcome) -> bool:
    """Whether a load is carried, as the load generator judges it."""
    return seen.p99 <= KNEE_MS and seen.tokens_per_s >= _DELIVERED * seen.due_per_s
