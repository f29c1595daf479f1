"""Two versions side by side: the order of the runs, what is kept and printed, and that a round can be measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from benchmarks import pair

_BEFORE = Path("/before")


def _run(*options: str) -> Result:
    app = typer.Typer()
    app.command()(pair.main)
    return CliRunner().invoke(app, [str(_BEFORE), *options])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What is measured, in order. The version before takes 4 us, this one 2, 3, 4 …"""
    done: list[tuple[str, str, str]] = []

    def measure(checkout: Path, form: str, stage: str, seconds: float) -> dict[str, float]:
        is_before = checkout == _BEFORE
        done.append(("before" if is_before else "now", form, stage))
        own = sum(version == "now" for version, _, _ in done)
        return {"cost, us": 4.0 if is_before else 1.0 + own}

    monkeypatch.setattr(pair, "_measure", measure)
    return done


def test_both_versions_take_turns_and_neither_always_begins(runs: list[tuple[str, str, str]]) -> None:
    result = _run("--rounds", "3", "--stages", "hub", "--forms", "pure")
    assert [version for version, _, _ in runs] == ["before", "now", "now", "before", "before", "now"]
    row = next(line for line in result.output.splitlines() if "cost, us" in line)
    # Ratios of 2, 3 and 4 over 4.
    assert row.split()[-6:] == ["4.00", "3.00", "0.750", "0.500", "1.000", "3"]
    assert "Fewer than 5 rounds" in result.output


def test_the_same_command_goes_on_where_it_was_stopped(
    runs: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    out = tmp_path / "rounds.json"
    options = ("--stages", "append,hub", "--out", str(out), "--rounds")
    assert "Fewer" in _run(*options, "2").output
    assert "Fewer" not in _run(*options, "5").output
    kept = msgspec.json.decode(out.read_bytes(), type=pair.Rounds)
    assert sorted(kept) == [
        f"{form} | {stage} | cost, us" for form in ("compiled", "pure") for stage in ("append", "hub")
    ]
    assert {len(pairs) for pairs in kept.values()} == {5}
    assert len(runs) == 5 * 2 * len(kept)
    _run(*options, "5")
    assert len(runs) == 5 * 2 * len(kept)


@pytest.mark.parametrize(
    ("rounds", "low", "high"), [(1, 0, 0), (5, 0, 4), (7, 0, 6), (8, 1, 6), (12, 2, 9), (20, 5, 14)]
)
def test_the_range_holds_the_true_median_with_90_per_cent(rounds: int, low: float, high: float) -> None:
    """Of ratios 0, 1, 2 …: with so many left out on each side, all rounds beyond it are unlikely enough."""
    assert pair._range([float(ratio) for ratio in reversed(range(rounds))]) == (low, high)


def test_an_unknown_stage_is_refused(runs: list[tuple[str, str, str]]) -> None:
    assert "'hubs' is not one of" in _run("--stages", "hubs").output
    assert not runs


def test_a_round_of_this_version_is_measured() -> None:
    source = Path(pair.__file__).with_name("pair_round.py").read_text()
    done = subprocess.run(
        [sys.executable, "-c", source, "hub", "0.02"], cwd=Path(pair.__file__).parents[1], capture_output=True, check=True
    )  # fmt: skip
    figures = msgspec.json.decode(done.stdout, type=dict[str, float])
    assert len(figures) == 3
    assert all(cost > 0 for cost in figures.values())
