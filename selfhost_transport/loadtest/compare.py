"""Two results side by side: what got better, what got worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.terminal import LABELS, shown_metrics

_NOTEWORTHY = 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure in both results. `better` is the sign of an improvement: -1 when lower is better, else 1."""

    name: str
    before: float
    after: float
    better: int = -1

    @property
    def change(self) -> float | None:
        """Relative change; None where there is nothing to relate to."""
        return (self.after - self.before) / self.before if self.before else None

    @property
    def improved(self) -> bool | None:
        """Whether it got better; None for a change within a twentieth."""
        change = self.change
        if change is None:  # there was nothing
            return None if not self.after else self.better > 0
        return None if abs(change) < _NOTEWORTHY else change * self.better > 0


def differences(before: RunResult, after: RunResult) -> Iterator[Difference]:
    """Every figure that both results have."""
    counted = "words/s" if before.load.any_text and after.load.any_text else "tokens/s"
    yield Difference(counted, before.tokens_per_s, after.tokens_per_s, better=1)
    both = shown_metrics(after)
    for metric in shown_metrics(before):
        if metric in both:
            old, new = before.summary(metric), after.summary(metric)
            yield Difference(f"{LABELS[metric]} p50 ms", old.p50, new.p50)
            yield Difference(f"{LABELS[metric]} p99 ms", old.p99, new.p99)
    for role, usage in before.usage.items():
        other = after.usage.get(role)
        if other is not None:
            yield Difference(f"{role} us/token", usage.us_per_token, other.us_per_token)
            yield Difference(f"{role} MB", usage.rss_after / 1e6, other.rss_after / 1e6)
    yield Difference("turns that failed, %", before.error_percent, after.error_percent)
    if before.prices and after.prices:
        yield Difference("cost", before.cost, after.cost)
    if before.knee is not None and after.knee is not None:
        yield Difference("knee, turns", before.knee.turns, after.knee.turns, better=1)
    yield Difference("Redis bytes per turn", before.redis_bytes_per_turn, after.redis_bytes_per_turn)
    yield Difference(
        "violations", sum(before.violation_counts.values()), sum(after.violation_counts.values())
    )


def show_comparison(
    before: RunResult, after: RunResult, console: Console, names: tuple[str, str] = ("before", "after")
) -> None:
    """Print both under their names, with the change in per cent; green is better, red worse, beyond a twentieth."""
    if before.load != after.load:
        console.print("[yellow]the two runs had different loads: compare with caution[/]")
    table = Table(box=None, header_style="dim")
    table.add_column("", no_wrap=True)
    for name in (f"{names[0]}\n{_minute(before)}", f"{names[1]}\n{_minute(after)}", "\nchange"):
        table.add_column(name, justify="right")
    for found in differences(before, after):
        if found.before or found.after:
            table.add_row(found.name, f"{found.before:,.1f}", f"{found.after:,.1f}", _colored(found))
    console.print(table)


def _minute(result: RunResult) -> str:
    """When a run began, without seconds and zone."""
    return result.started[:16].replace("T", " ")


def _colored(found: Difference) -> str:
    text = "new" if found.change is None else f"{found.change:+.0%}"
    if found.improved is None:
        return text
    return f"[green]{text}[/]" if found.improved else f"[red]{text}[/]"
