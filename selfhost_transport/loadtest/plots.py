"""The plots of a report, each an SVG that needs nothing from a network."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from selfhost_transport.loadtest.recorder import Metric
from selfhost_transport.loadtest.result import RunResult
from selfhost_transport.loadtest.terminal import LABELS

# Twice the width of a phone: scaled down to it, the text is still read.
_SIZE = (6.4, 3.4)
# In characters: what fits above a plot, and what an entry takes besides its label.
_LEGEND_WIDTH, _LEGEND_GAP = 75, 6
_BARS = 40
_LABEL_RATIO = 1.12
_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999)
_COLORS = {
    "gateway": "#2563eb",
    "worker": "#059669",
    "redis": "#dc2626",
    "generator": "#9ca3af",
    "provider": "#d97706",
}

_INK = "#010203"
"""Stands for the colour of the page's text."""
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 11, "savefig.transparent": True, "legend.labelcolor": _INK,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}  # fmt: skip

Draw = Callable[[RunResult, Axes], bool]


def draw(result: RunResult, picture: Draw) -> str:
    """The SVG element of a plot; '' when the result has nothing to show in it."""
    # Text stays text, so that it can be read aloud and searched; ids are stable, so that reports can be compared.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": picture.__name__}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, alpha=0.25)
        if not picture(result, axes):
            return ""
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()[out.getvalue().index("<svg") :]
    # The page's own colour: black on white by day, white on black by night.
    return _own_ids(svg, picture.__name__).replace(_INK, "currentColor")


def _own_ids(svg: str, name: str) -> str:
    """Several drawings share one page, so each gets ids of its own."""
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    return svg.replace("url(#", f"url(#{name}-")


def latency_over_time(result: RunResult, axes: Axes) -> bool:
    """Token latency from the schedule, second by second."""
    moments = result.moments
    if not moments:
        return False
    seconds = [moment.at for moment in moments]
    axes.plot(seconds, [moment.max for moment in moments], color="#9ca3af", label="max")
    axes.plot(seconds, [moment.p99 for moment in moments], color="#dc2626", label="p99")
    axes.plot(seconds, [moment.p50 for moment in moments], color="#2563eb", label="p50")
    what = Metric.DELIVERY if result.load.any_text else Metric.TOKEN
    axes.set(xlabel="seconds", ylabel=f"ms, {LABELS[what]}")
    _logarithmic(axes)
    _legend(axes)
    return True


def percentiles(result: RunResult, axes: Axes) -> bool:
    """Percentile curves of the main metrics, with as many nines as were measured."""
    shown = False
    token = () if result.load.any_text else (Metric.TOKEN,)
    for metric in (*token, Metric.DELIVERY, Metric.FIRST_TOKEN, Metric.TOTAL, Metric.CANCEL_ACK):
        curve = result.histogram(metric).curve()
        if len(curve) > 1:
            axes.plot(
                [_nines(percent) for percent, _ in curve], [ms for _, ms in curve], label=LABELS[metric]
            )
            shown = True
    ticks = [percent for percent in _PERCENTILES if _nines(percent) <= axes.get_xlim()[1]]
    axes.set_xticks([_nines(percent) for percent in ticks], [f"{percent:g}%" for percent in ticks])
    axes.set(ylabel="ms")
    _logarithmic(axes)
    if shown:
        _legend(axes)
    return shown


def first_tokens(result: RunResult, axes: Axes) -> bool:
    """How long people waited for the first token, and for the whole answer: how many of them, by time."""
    shown = False
    for metric, color in ((Metric.FIRST_TOKEN, "#2563eb"), (Metric.TOTAL, "#059669")):
        curve = [(0.0, result.summary(metric).p50), *result.histogram(metric).curve()][1:]
        if result.load.any_text and len(curve) > 1:
            axes.plot(
                [ms / 1e3 for _, ms in curve],
                [percent for percent, _ in curve],
                color=color,
                label=LABELS[metric],
            )
            shown = True
    axes.set(xlabel="seconds", ylabel="% of the turns", ylim=(0, 100))
    if shown:
        _legend(axes)
    return shown


def throughput(result: RunResult, axes: Axes) -> bool:
    """Tokens received, second by second, and what was due."""
    # The first and the last second are cut by the window.
    whole = result.moments[1:-1]
    if not whole:
        return False
    axes.plot([moment.at for moment in whole], [moment.tokens for moment in whole], color="#2563eb")
    if result.expected_tokens_per_s:
        axes.axhline(result.expected_tokens_per_s, color="#9ca3af", linestyle="--", label="due")
        _legend(axes)
    axes.set(xlabel="seconds", ylabel="words/s" if result.load.any_text else "tokens/s", ylim=(0, None))
    return True


def knee(result: RunResult, axes: Axes) -> bool:
    """p50 and p99 by load; filled where the load was inside the budget."""
    if not result.steps:
        return False
    steps = sorted(result.steps, key=lambda step: step.turns)
    turns = [step.turns for step in steps]
    for name, values, color in (
        ("p99", [step.p99 for step in steps], "#dc2626"),
        ("p50", [step.p50 for step in steps], "#2563eb"),
    ):
        axes.plot(turns, values, color=color, label=name)
        fills = [color if step.passed else "white" for step in steps]
        axes.scatter(turns, values, c=fills, edgecolors=color, zorder=3)
    axes.set(xlabel="turns at once (filled: inside the budget)", ylabel="ms", xscale="log")
    _logarithmic(axes)
    ticks = _apart(turns)
    axes.set_xticks(ticks, [str(number) for number in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    _legend(axes)
    return True


def overload(result: RunResult, axes: Axes) -> bool:
    """Turns per second that ended, by turns per second offered; and what was refused."""
    steps = sorted(result.overload, key=lambda step: step.offered_per_s)
    if not steps:
        return False
    offered = [step.offered_per_s for step in steps]
    axes.plot(offered, offered, color="#d1d5db", linestyle="--", label="all of it")
    axes.plot(offered, [step.achieved_per_s for step in steps], "o-", color="#059669", label="ended")
    axes.plot(offered, [step.shed_per_s for step in steps], "o-", color="#9ca3af", label="refused at once")
    axes.set(xlabel="turns offered per second", ylabel="turns per second", ylim=(0, None))
    _legend(axes)
    return True


def overload_latency(result: RunResult, axes: Axes) -> bool:
    """Send to first token of the accepted turns, by turns per second offered."""
    steps = sorted(result.overload, key=lambda step: step.offered_per_s)
    if not steps:
        return False
    offered = [step.offered_per_s for step in steps]
    axes.plot(offered, [step.first_token_p99 for step in steps], "o-", color="#dc2626", label="p99")
    axes.plot(offered, [step.first_token_p50 for step in steps], "o-", color="#2563eb", label="p50")
    axes.set(xlabel="turns offered per second", ylabel="ms, send to first token")
    _logarithmic(axes)
    _legend(axes)
    return True


def overload_over_time(result: RunResult, axes: Axes) -> bool:
    """The last run, second by second: how soon everything is back after the load has fallen."""
    moments = [moment for moment in result.moments if moment.offered]
    if not result.overload or not moments:
        return False
    seconds = [moment.at for moment in moments]
    for name, values, color in (
        ("offered", [moment.offered for moment in moments], "#9ca3af"),
        ("ended", [moment.ended for moment in moments], "#059669"),
    ):
        axes.plot(seconds, values, color=color, label=name)
    axes.set(xlabel="seconds", ylabel="turns per second", ylim=(0, None))
    late = axes.twinx()
    late.plot(
        seconds, [moment.first_token_p99 for moment in moments], color="#dc2626", label="first token p99"
    )
    late.set(ylabel="ms", ylim=(0, None))
    _legend(axes)
    _legend(late, right=True)
    return True


def cancels(result: RunResult, axes: Axes) -> bool:
    """How long a stop button takes: to the acknowledgement, and to the terminal."""
    found = {metric: result.histogram(metric) for metric in (Metric.CANCEL_ACK, Metric.CANCEL_TERMINAL)}
    longest = max(histogram.percentile(99.5) for histogram in found.values())
    if not longest:
        return False
    width = longest / _BARS
    for (metric, histogram), color in zip(found.items(), ("#2563eb", "#dc2626"), strict=True):
        bars = [(start, count) for start, count in histogram.bars(width) if start <= longest]
        axes.bar(
            [start for start, _ in bars],
            [count for _, count in bars],
            width,
            align="edge",
            alpha=0.6,
            color=color,
            label=LABELS[metric],
        )
    axes.set(xlabel="ms (to the 99.5th percentile)", ylabel="cancels")
    _legend(axes)
    return True


def cpu(result: RunResult, axes: Axes) -> bool:
    """Cores in use by role."""
    if not _by_role(result, axes, lambda moment: moment.cpu):
        return False
    axes.set(xlabel="seconds", ylabel="cores", ylim=(0, None))
    return True


def memory(result: RunResult, axes: Axes) -> bool:
    """Resident memory by role."""
    if not _by_role(result, axes, lambda moment: {role: rss / 1e6 for role, rss in moment.memory.items()}):
        return False
    axes.set(xlabel="seconds", ylabel="MB resident", ylim=(0, None))
    return True


def _by_role(result: RunResult, axes: Axes, values: Callable[[Any], dict[str, float]]) -> bool:
    shown = False
    for role, color in _COLORS.items():
        points = [(moment.at, values(moment)[role]) for moment in result.moments if role in values(moment)]
        if points:
            axes.plot([at for at, _ in points], [value for _, value in points], color=color, label=role)
            shown = True
    if shown:
        _legend(axes)
    return shown


def _legend(axes: Axes, *, right: bool = False) -> None:
    """Above the plot, in one line if it fits: inside it would cover what it explains."""
    labels = axes.get_legend_handles_labels()[1]
    width = sum(len(label) + _LEGEND_GAP for label in labels)
    axes.legend(
        frameon=False, ncols=len(labels) if width <= _LEGEND_WIDTH else 2,
        loc="lower right" if right else "lower left", bbox_to_anchor=(float(right), 1.0), borderaxespad=0.1,
        handlelength=1.2, handletextpad=0.4, columnspacing=1.2, borderpad=0.0, fontsize=10,
    )  # fmt: skip


def _logarithmic(axes: Axes) -> None:
    """A logarithmic y axis with plain numbers on it."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _apart(values: list[int]) -> list[int]:
    """Those of ascending values whose labels do not run into each other on a logarithmic axis."""
    chosen: list[int] = []
    for value in values:
        if not chosen or value >= chosen[-1] * _LABEL_RATIO:
            chosen.append(value)
    return chosen


def _nines(percent: float) -> float:
    """0 at 0 %, 1 at 90 %, 2 at 99 %: equal steps for equal orders of rarity."""
    return -math.log10(max(1e-9, 1 - percent / 100))
