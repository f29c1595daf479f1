"""`python -m benchmarks.rivals`: turns at once, one viewer each, on this system and on the others."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from benchmarks.figures import Figure, Results, show
from benchmarks.native_programs import Program
from benchmarks.rig import Cpu
from benchmarks.rivals.load import RivalLoad
from benchmarks.rivals.systems import SYSTEMS, Running, System, started
from benchmarks.rivals.viewers import Measured
from benchmarks.whole import figures as our_figures
from benchmarks.whole import measure
from selfhost_transport.loadtest.plan import Load

STAGE = "rivals"
_LEAD_S = 0.5
# The length of our turns, in tokens: others have no turns, so theirs never end.
_OUR_TOKENS = 1000
_WINDOWS_MS = {"ours": 0, "ours-40ms": 40}
_ALL = (*_WINDOWS_MS, *(system.name for system in SYSTEMS))

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    turns: Annotated[int, typer.Option(min=1, help="Turns at once.")] = 500,
    rate: Annotated[float, typer.Option(min=0.1, help="Tokens per second of each.")] = 50.0,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds measured, of each system.")] = 6.0,
    warmup: Annotated[float, typer.Option(min=0.5, help="Seconds before, in which the turns start.")] = 6.0,
    systems: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(_ALL),
) -> None:
    """Measure each, print the figures, write them to benchmarks/results/.

    Exit status 1 when a system that was asked for is not installed; the others are measured all the same.
    """
    wanted = systems.split(",")
    for name in wanted:
        if name not in _ALL:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(_ALL)}")
    load = RivalLoad(turns, rate, warmup, seconds)
    console, results, complete = Console(), Results.begin(), True
    for name in wanted:
        system = next((found for found in SYSTEMS if found.name == name), None)
        if system is not None and (missing := system.missing()):
            console.print(f"{name} is not measured, it is not installed: {missing}", soft_wrap=True)
            complete = False
            continue
        figures = asyncio.run(_ours(name, load) if system is None else theirs(system, load))
        show(figures, console)
        results.figures += figures
    console.print(f"written to {results.save()}")
    raise typer.Exit(0 if complete else 1)


async def _ours(name: str, load: RivalLoad) -> list[Figure]:
    ours = Load(
        turns=load.turns,
        rate=load.rate,
        tokens=_OUR_TOKENS,
        duration_s=load.seconds,
        warmup_s=load.warmup_s,
    )
    return our_figures(await measure(ours, _WINDOWS_MS[name]), STAGE, name)


async def theirs(system: System, load: RivalLoad) -> list[Figure]:
    """The figures of another system."""
    async with AsyncExitStack() as stack:
        running = await system.start(stack, load)
        viewers = await started(stack, *_viewers(system.name, running.url, load))
        assert await running.publisher.line() == "ready"
        assert await viewers.line() == "ready"
        start = time.time() + _LEAD_S
        for program in (running.publisher, viewers):
            program.send_line(str(start))
        await asyncio.sleep(start + load.warmup_s - time.time())
        clocks = {role: [Cpu(pid) for pid in pids] for role, pids in _roles(running, viewers).items()}
        await asyncio.sleep(start + load.warmup_s + load.seconds - time.time())
        spent = {role: sum(cpu.spent_us() for cpu in found) for role, found in clocks.items()}
        measured = msgspec.json.decode(await viewers.line(), type=Measured)
    return _figures(system.name, load, measured, spent)


def _viewers(wire: str, url: str, load: RivalLoad) -> tuple[str, ...]:
    return (sys.executable, "-m", "benchmarks.rivals.viewers", wire, url, load.argument())


def _roles(running: Running, viewers: Program) -> dict[str, list[int]]:
    return {**running.processes, "generator": [viewers.pid]}


def _figures(name: str, load: RivalLoad, measured: Measured, spent: dict[str, float]) -> list[Figure]:
    rate = measured.tokens / load.seconds
    return [
        Figure(STAGE, f"{name}: tokens received", rate, "tokens/s"),
        Figure(STAGE, f"{name}: of those due", rate / load.due, "ratio of the ceiling"),
        Figure(STAGE, f"{name}: token due to received, p50", measured.p50, "ms"),
        Figure(STAGE, f"{name}: token due to received, p99", measured.p99, "ms"),
        Figure(STAGE, f"{name}: out of order or lost", float(measured.out_of_order), "tokens"),
        *(
            Figure(STAGE, f"{name}: {role}", us / max(1, measured.tokens), "us per token")
            for role, us in spent.items()
        ),
    ]


if __name__ == "__main__":
    app()
