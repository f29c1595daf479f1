"""`python -m benchmarks.simulation calibrate`, `knee`, `beside`, `grow`: see docs/performance.md."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.simulation.fleet import ALL, CALLED, Base
from benchmarks.simulation.knee import find_knee
from benchmarks.simulation.model import Outcome, SimulatedLoad, Simulation
from benchmarks.simulation.units import MEASURED, ROLES, Units

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
Costs = Annotated[Path, typer.Option(help="The measured costs.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same run.")]


@app.command()
def calibrate(costs: Costs = MEASURED) -> None:
    """Measure the costs of the parts on this machine, which has nothing else to do for three minutes."""
    from benchmarks.simulation.calibrate import calibrate as measure

    found = measure()
    found.save(costs)
    print(costs.read_text())


@app.command()
def knee(costs: Costs = MEASURED, first: int = 400, seed: Seed = 1) -> None:
    """Find the most turns of 50 tokens/s inside a p99 of 100 ms, as `loadtest ramp --local` does."""
    found = find_knee(Units.load(costs), first, seed, _show)
    print(
        f"knee: {found.turns} turns, of {found.tried} runs {found.inside} inside; {found.above} are too many"
    )


@app.command()
def beside(
    turns: Annotated[list[int], typer.Argument()],
    rate: float = 50.0,
    tokens: int = 200,
    gateways: int = 1,
    costs: Costs = MEASURED,
    seed: Seed = 1,
) -> None:
    """Simulate loads that were measured too, on one machine."""
    for count in turns:
        load = SimulatedLoad(count, rate, tokens, gateways=gateways)
        _show(count, Simulation(Units.load(costs), load, seed).run())


@app.command(name="grow")
def grow_fleets(
    costs: Costs = MEASURED,
    seed: Seed = 1,
    picture: Annotated[Path | None, typer.Option(help="A PNG file to write.")] = None,
) -> None:
    """Size fleets for 1,000 to 1,000,000 turns at once."""
    from benchmarks.simulation import grow

    units = Units.load(costs)
    found: dict[int, list[grow.Grown]] = {}
    for called in (CALLED, ALL):
        print("\nAs it is:\n" if called == CALLED else "\nIf a new turn called all workers:\n")
        print(grow.HEAD)
        found[called] = []
        for one in grow.grow(units, seed, called=called):
            found[called].append(one)
            print(one.row(), flush=True)
        last = grow.last_size(units, Base.of(units, grow.LOAD), called=called)
        print(f"\nSome number of processes is enough up to {last:,} turns, if not beyond.")
    if picture is not None:
        grow.draw(found[CALLED], found[ALL], picture)


def _show(turns: int, seen: Outcome) -> None:
    cores = ", ".join(
        f"{role} {seen.cores[role] * 1e6 / seen.due_per_s:.1f} us ({seen.wakes_per_s[role]:,.0f}/s)"
        for role in ROLES
    )
    print(
        f"{turns} turns: {seen.tokens_per_s:,.0f} of {seen.due_per_s:,.0f} tokens/s, "
        f"p50 {seen.p50:.1f}, p99 {seen.p99:.1f} ms; {cores}",
        flush=True,
    )


if __name__ == "__main__":
    app()
