"""From the measured costs to fleets for 1,000 to 1,000,000 turns at once: a table, and a picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.simulation.fleet import MAX_CLIENTS, TIERS, Base, Fleet, Use, shares, size
from benchmarks.simulation.journey import token_p99_ms
from benchmarks.simulation.model import SimulatedLoad
from benchmarks.simulation.units import Units

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
LOAD = SimulatedLoad(turns=0, rate=50.0, tokens=500, warmup_s=1.5, duration_s=1.5)
"""Answers of 500 tokens, 50 a second: a turn lasts ten seconds."""
HEAD = (
    "| turns at once | workers / Redis / gateways | cores | us of CPU per token | p99 | "
    "a worker, a Redis, a gateway: base + mesh + herd, % of a core | connections of a Redis |\n"
    "|---|---|---|---|---|---|---|"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grown:
    """A size, and the fleet for it; none: no number of processes is enough."""

    turns: int
    fleet: Fleet | None
    shares: dict[str, Use]
    p99_ms: float

    @property
    def us_per_token(self) -> float:
        """All tiers together."""
        if self.fleet is None:
            return float("nan")
        used = sum(share.total * self.fleet.count(tier) for tier, share in self.shares.items())
        return used * 1e6 / (self.turns * LOAD.rate)

    def row(self) -> str:
        """As a row of the table."""
        if self.fleet is None:
            return f"| {self.turns:,} | none is enough | | | | | |"
        parts = ", ".join(
            f"{share.base:.0%} + {share.mesh:.0%} + {share.herd:.0%}".replace("%", "")
            for share in (self.shares[tier] for tier in TIERS)
        )
        fleet, over = self.fleet, self.fleet.connections_per_redis > MAX_CLIENTS
        return (
            f"| {self.turns:,} | {fleet.workers:,} / {fleet.redis:,} / {fleet.gateways:,} | {fleet.cores:,} | "
            f"{self.us_per_token:.0f} | {self.p99_ms:.0f} ms | {parts} | {fleet.connections_per_redis:,}{' (too many)' * over} |"
        )


def grow(units: Units, seed: int, *, called: int) -> Iterator[Grown]:
    """Each size in turn."""
    base = Base.of(units, LOAD)
    for turns in SIZES:
        fleet = size(units, base, turns, called=called)
        found = {} if fleet is None else shares(units, base, fleet)
        p99_ms = float("nan") if fleet is None else token_p99_ms(units, base, fleet, LOAD, seed)
        yield Grown(turns, fleet, found, p99_ms)


def last_size(units: Units, base: Base, *, called: int) -> int:
    """The most turns for which some fleet is enough, to a twentieth."""
    low, high = SIZES[0], SIZES[-1]
    if size(units, base, high, called=called) is not None:
        return high
    while high > low * 1.05:
        middle = (low + high) // 2
        low, high = (low, middle) if size(units, base, middle, called=called) is None else (middle, high)
    return low


def draw(as_it_is: list[Grown], all_called: list[Grown], path: Path) -> None:
    """Cost per token by size, as it is and as it was when a new turn called all workers."""
    figure = Figure(figsize=(7.5, 4))
    axes = figure.subplots()
    for grown, label, style in (
        (as_it_is, "a new turn calls two workers", "o-"),
        (all_called, "all workers, as before", "o--"),
    ):
        there = [one for one in grown if one.fleet is not None]
        axes.plot([one.turns for one in there], [one.us_per_token for one in there], style, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("turns at once, 50 tokens/s each")
    axes.set_ylabel("CPU per token, all processes, µs")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
