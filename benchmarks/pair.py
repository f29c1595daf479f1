"""Two versions side by side: `python -m benchmarks.pair ../before --rounds 5`, with `../before` set up by its `scripts/setup`.

Both run the same stages in turn, in the order before, now, now, before, so that a machine that changes its pace does so for
both. Printed: the medians, and the median of the rounds' ratios with what holds the true one with 90 %. `--out` keeps what
was measured: the same command goes on from there, so that a long measurement can be taken in parts.
"""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from selfhost_transport.settings import ENV_PREFIX

STAGES: Final = ("append", "hub", "fanout", "whole")
FORMS: Final = ("pure", "compiled")
ENOUGH: Final = 5
"""Rounds from which on some range of the ratios holds their true median with 90 %."""
_DOUBT: Final = 0.1
_HERE: Final = Path(__file__).parents[1]


class Pair(msgspec.Struct):
    """A figure of one round."""

    before: float
    now: float

    @property
    def ratio(self) -> float:
        """Now over before: below 1 is better."""
        return self.now / self.before


Rounds = dict[str, list[Pair]]
"""By "form | stage | figure"."""


def main(
    other: Annotated[Path, typer.Argument(help="A checkout of the version before, with its .venv.")],
    stages: Annotated[str, typer.Option(help="Stages, separated by commas.")] = ",".join(STAGES),
    forms: Annotated[str, typer.Option(help="Without or with the compiled accelerator, or both.")] = ",".join(
        FORMS
    ),
    rounds: int = ENOUGH,
    seconds: Annotated[float, typer.Option(help="For each value.")] = 1.0,
    out: Annotated[
        Path | None,
        typer.Option(help="A JSON file that keeps what was measured; only what it lacks is measured."),
    ] = None,
) -> None:
    """Measure and print."""
    found: Rounds = defaultdict(list)
    if out is not None and out.exists():
        found.update(msgspec.json.decode(out.read_bytes(), type=Rounds))
    for number in range(rounds):
        for stage in _chosen(stages, STAGES):
            for form in _chosen(forms, FORMS):
                key = f"{form} | {stage} | "
                if any(len(pairs) > number for name, pairs in found.items() if name.startswith(key)):
                    continue
                checkouts = (other, _HERE) if number % 2 == 0 else (_HERE, other)
                figures = {checkout: _measure(checkout, form, stage, seconds) for checkout in checkouts}
                for name, before in figures[other].items():
                    found[key + name].append(Pair(before, figures[_HERE][name]))
                if out is not None:
                    out.write_bytes(msgspec.json.encode(dict(found)))
    _show(found)


def _chosen(text: str, known: tuple[str, ...]) -> list[str]:
    chosen = text.split(",")
    for name in chosen:
        if name not in known:
            raise typer.BadParameter(f"{name!r} is not one of {', '.join(known)}")
    return chosen


def _measure(checkout: Path, form: str, stage: str, seconds: float) -> dict[str, float]:
    checkout = checkout.resolve()
    source = (Path(__file__).parent / "pair_round.py").read_text()
    environment = {**os.environ, f"{ENV_PREFIX}PURE": "1" if form == "pure" else ""}
    done = subprocess.run(
        [checkout / ".venv/bin/python", "-c", source, stage, str(seconds)],
        cwd=checkout, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{stage} of {checkout}: {done.stderr or done.stdout}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float])


def _show(found: Rounds) -> None:
    table = Table("", "before", "now", "ratio", "from", "to", "rounds", box=None, header_style="dim")
    for row in _rows(found):
        table.add_row(*row)
    Console(width=160).print(table)
    if any(len(pairs) < ENOUGH for pairs in found.values()):
        print(f"Fewer than {ENOUGH} rounds do not say what 3 % is.")


def _rows(found: Rounds) -> Iterator[tuple[str, ...]]:
    for name, pairs in sorted(found.items()):
        ratios = [pair.ratio for pair in pairs]
        medians = [
            statistics.median(pair.before for pair in pairs),
            statistics.median(pair.now for pair in pairs),
        ]
        spread = (statistics.median(ratios), *_range(ratios))
        yield (
            name,
            *(f"{value:,.2f}" for value in medians),
            *(f"{value:.3f}" for value in spread),
            str(len(pairs)),
        )


def _range(ratios: Sequence[float]) -> tuple[float, float]:
    """The narrowest range between two of them, as many from the lowest as from the highest, that holds the true median.

    Each is below that with one half, so how many are is binomial: nothing is assumed of how they scatter.
    """
    ordered, count = sorted(ratios), len(ratios)
    outside = 0
    while (
        2 * sum(math.comb(count, below) for below in range(outside + 2)) <= _DOUBT * 2**count
        and outside < count // 2
    ):
        outside += 1
    return ordered[outside], ordered[-1 - outside]


if __name__ == "__main__":
    typer.run(main)
