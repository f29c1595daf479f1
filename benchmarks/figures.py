"""Figures that a benchmark finds: printed, written as JSON, compared between two commits."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
_NOTEWORTHY = 0.1


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. Units that count per second are better when higher, all others when lower."""

    stage: str
    name: str
    value: float
    unit: str

    @property
    def key(self) -> str:
        """What it is compared by."""
        return f"{self.stage}: {self.name} ({self.unit})"

    @property
    def higher_is_better(self) -> bool:
        """Whether more of it is an improvement."""
        return self.unit.endswith("/s") or self.unit == "ratio of the ceiling"


@dataclass(slots=True)
class Results:
    """The figures of one run, and where and of what they were taken."""

    commit: str
    started: str
    cores: int
    python: str
    figures: list[Figure] = field(default_factory=list)

    @classmethod
    def begin(cls) -> Results:
        """Empty results of the checkout that is being run."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        return cls(commit(), now, os.cpu_count() or 0, platform.python_version())

    def save(self) -> Path:
        """Write to the folder of results; returns the file."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.started}-{self.commit}.json"
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1))
        return path

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def commit() -> str:
    """The checkout that is being run, as git describes it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def show(figures: Iterable[Figure], console: Console) -> None:
    """Print figures as a table."""
    table = Table(box=None, show_header=False)
    for figure in figures:
        table.add_row(figure.stage, figure.name, f"{figure.value:,.2f}", figure.unit)
    console.print(table)


def show_comparison(before: Results, after: Results, console: Console) -> None:
    """Print what both have, side by side; green is better, red worse, beyond a tenth."""
    old = {figure.key: figure for figure in before.figures}
    table = Table("", before.commit, after.commit, "change", box=None, header_style="dim")
    for figure in after.figures:
        known = old.get(figure.key)
        if known is not None and known.value:
            change = (figure.value - known.value) / known.value
            table.add_row(figure.key, f"{known.value:,.2f}", f"{figure.value:,.2f}", _colored(figure, change))
    console.print(table)


def _colored(figure: Figure, change: float) -> str:
    text = f"{change:+.0%}"
    if abs(change) < _NOTEWORTHY:
        return text
    return f"[green]{text}[/]" if (change > 0) == figure.higher_is_better else f"[red]{text}[/]"
