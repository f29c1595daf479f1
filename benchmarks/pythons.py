"""Interpreters side by side: `python -m benchmarks.pythons PYTHON… --rounds 2`, each with and without the compiled accelerator.

Each PYTHON has the project installed. They take turns, so that a machine that changes its pace changes it for all. Printed: the
median of the rounds; `--out` keeps the rounds, and those that it has already count too.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.settings import ENV_PREFIX

_TURNS = 300
# Of a run of its own, in the interpreter that is measured.
_STAGES = """
import importlib, platform, sys
import msgspec
figures = [figure for stage in ("append", "hub") for figure in importlib.import_module(f"benchmarks.{stage}").run(2.0)]
print(msgspec.json.encode({f"{one.name}, {one.unit}": one.value for one in figures}).decode())
"""
_SHOWN = (
    "worker CPU, us", "worker's path, appends/s",
    "notification to 1 written frames, us", "notification to 100 written frames, us",
    "whole: gateway, us per token", "whole: worker, us per token", "whole: token p99, ms",
)  # fmt: skip
Rounds = dict[str, list[dict[str, float]]]


def main(
    pythons: Annotated[list[str], typer.Argument(help="Interpreters.")],
    rounds: int = 1,
    out: Annotated[Path | None, typer.Option(help="A JSON file that keeps the rounds.")] = None,
) -> None:
    """Measure and print."""
    found: Rounds = defaultdict(list)
    if out is not None and out.exists():
        found.update(msgspec.json.decode(out.read_bytes(), type=Rounds))
    for _ in range(rounds):
        for python in pythons:
            for form in ("compiled", "pure"):
                found[f"{_version(python)} {form}"].append(_measure(python, form))
                if out is not None:
                    out.write_bytes(msgspec.json.encode(dict(found)))
    _show(found)


def _version(python: str) -> str:
    return _run(python, {}, "-c", "import platform; print(platform.python_version())").strip()


def _measure(python: str, form: str) -> dict[str, float]:
    environment = {f"{ENV_PREFIX}PURE": "1"} if form == "pure" else {}
    figures = msgspec.json.decode(_run(python, environment, "-c", _STAGES), type=dict[str, float])
    with TemporaryDirectory(prefix="benchmarks-") as folder:
        written = Path(folder) / "run.json"
        _run(
            python, environment, "-m", "selfhost_transport.cli", "loadtest", "--local", "--quiet", "--turns", str(_TURNS),
            "--duration", "5", "--json", str(written),
        )  # fmt: skip
        result = msgspec.json.decode(written.read_bytes(), type=RunResult)
    figures |= {f"whole: {role}, us per token": usage.us_per_token for role, usage in result.usage.items()}
    figures["whole: token p99, ms"] = result.measures["token"].summary.p99
    return figures


def _run(python: str, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [python, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{python}: {done.stderr or done.stdout}")
    return done.stdout


def _show(found: Rounds) -> None:
    table = Table("", *_SHOWN, box=None, header_style="dim")
    for name, rounds in sorted(found.items()):
        values = (statistics.median(one[figure] for one in rounds) for figure in _SHOWN)
        table.add_row(f"{name} ({len(rounds)})", *(f"{value:,.1f}" for value in values))
    Console(width=200).print(table)


if __name__ == "__main__":
    typer.run(main)
