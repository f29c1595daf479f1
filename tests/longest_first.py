"""The order of the test files when several processes run them: the longest first, so that none is alone at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

TIMES = Path(__file__).parent / "times.txt"
"""One line a file: seconds, path. `python -m scripts.write_test_times` writes it; files not in it are short."""


def times() -> dict[str, float]:
    """Seconds by path from the root of the repository."""
    rows = (line.split() for line in TIMES.read_text().splitlines() if line and not line.startswith("#"))
    return {path: float(seconds) for seconds, path in rows}


def longest_first(items: list[pytest.Item]) -> None:
    """Sort collected tests by the time of their file; the order within a file stays."""
    seconds = times()
    items.sort(key=lambda item: -seconds.get(item.nodeid.partition("::")[0], 0.0))
