"""`python -m benchmarks`: all stages or the named ones; `python -m benchmarks compare A B`: two results."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.figures import Results, show, show_comparison

STAGES = (
    "append", "notify", "decode", "frame", "hub", "fanout", "connect", "attach", "history", "long", "resume", "idle",
    "growth", "generator", "provider", "sizing", "turns", "whole", "frontends", "tracing", "gateways",
)  # fmt: skip
# "whole" is part of the tables in a form of its own; "turns" takes minutes by itself.
_APART = ("whole", "sizing", "turns", "frontends", "tracing", "gateways")
_QUICK_S = 1.0
_SECONDS = 4.0

app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def run_all(
    context: typer.Context,
    stages: Annotated[str, typer.Option(help="Stages, separated by commas.")] = ",".join(STAGES),
    quick: Annotated[bool, typer.Option("--quick", help="A second each: to see that all works.")] = False,
) -> None:
    """Run the stages, print their figures, write them to benchmarks/results/."""
    if context.invoked_subcommand is not None:
        return
    wanted = stages.split(",")
    for stage in wanted:
        if stage not in STAGES:
            raise typer.BadParameter(f"{stage!r} is not one of {', '.join(STAGES)}")
    console, results = Console(), Results.begin()
    for stage in wanted:
        figures = importlib.import_module(f"benchmarks.{stage}").run(_QUICK_S if quick else _SECONDS)
        show(figures, console)
        results.figures += figures
    console.print(f"written to {results.save()}")


@app.command()
def document() -> None:
    """Measure what docs/performance.md states, and print it as its tables. Takes about ten minutes."""
    results = Results.begin()
    try:
        importlib.import_module("benchmarks.document").run(
            [stage for stage in STAGES if stage not in _APART], results
        )
    finally:
        Console().print(f"written to {results.save()}")


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="A file of benchmarks/results/.")],
    after: Annotated[Path, typer.Argument(help="Another.")],
) -> None:
    """Show what changed between two results."""
    show_comparison(Results.load(before), Results.load(after), Console())


if __name__ == "__main__":
    app()
