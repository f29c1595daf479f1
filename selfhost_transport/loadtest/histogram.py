"""Durations in HDR histograms: 1 microsecond to 5 minutes, three significant digits, mergeable."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from hdrh.histogram import HdrHistogram

_LOWEST_US = 1
_HIGHEST_US = 300_000_000
_DIGITS = 3
# A value keeps its first 11 bits: a step is less than a thousandth of it, and values of a step count as one.
_KEPT_BITS = 11
# Where the percentile plot is sampled: 0, 50, 90, 99 … with four points to each halving of the distance to 100.
_CURVE = tuple(100 * (1 - 0.5 ** (step / 4)) for step in range(4 * 17))


@dataclass(frozen=True, slots=True)
class Summary:
    """What people read of a histogram. All but `count` in milliseconds; zeros when nothing was recorded."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0


class Histogram:
    """Counts of durations. Values outside the range count as its ends."""

    __slots__ = ("_hdr", "_pending")

    def __init__(self) -> None:
        # Built on first use: most are only filled and added to others.
        self._hdr: Any = None
        # Count by value, rounded down to its step: this is called for every token, and the package is slow.
        self._pending: defaultdict[int, int] = defaultdict(int)

    def record(self, seconds: float) -> None:
        """Count one duration; a negative one, from two clocks that differ, counts as the lowest."""
        us = int(seconds * 1e6)
        beyond = us.bit_length() - _KEPT_BITS
        self._pending[us if beyond <= 0 else us >> beyond << beyond] += 1

    def merge(self, other: Histogram) -> None:
        """Add another's counts."""
        self._counts.add(other._counts)

    @property
    def _counts(self) -> Any:
        """The histogram with everything that was recorded."""
        if self._hdr is None:
            self._hdr = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
        for us, count in self._pending.items():
            self._hdr.record_value(min(max(us, _LOWEST_US), _HIGHEST_US), count)
        self._pending.clear()
        return self._hdr

    @property
    def count(self) -> int:
        """How many were recorded."""
        return int(self._counts.get_total_count())

    def percentile(self, percent: float) -> float:
        """Milliseconds that `percent` of the values do not exceed; 0 when there are none."""
        return float(self._counts.get_value_at_percentile(percent)) / 1e3 if self.count else 0.0

    def summary(self) -> Summary:
        """The figures for reports."""
        if not self.count:
            return Summary()
        p50, p90, p99, p999 = (self.percentile(percent) for percent in (50, 90, 99, 99.9))
        mean, top = float(self._counts.get_mean_value()) / 1e3, float(self._counts.get_max_value()) / 1e3
        return Summary(self.count, mean, p50, p90, p99, p999, top)

    def curve(self) -> list[tuple[float, float]]:
        """(percentile, milliseconds) from the median's side to the last recorded value."""
        if not self.count:
            return []
        visible = [percent for percent in _CURVE if self.count * (1 - percent / 100) >= 1]
        return [(percent, self.percentile(percent)) for percent in visible]

    def bars(self, width_ms: float) -> list[tuple[float, int]]:
        """(start of the bar in ms, count) for bars of equal width, empty ones included."""
        found: dict[int, int] = {}
        for item in self._counts.get_recorded_iterator():
            bar = int(item.value_iterated_to / 1e3 / width_ms)
            found[bar] = found.get(bar, 0) + int(item.count_added_in_this_iter_step)
        return [(bar * width_ms, found.get(bar, 0)) for bar in range(max(found, default=-1) + 1)]

    def encode(self) -> str:
        """The compressed standard form, base64."""
        encoded: bytes = self._counts.encode()
        return encoded.decode("ascii")

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """The reverse of `encode`."""
        made = cls()
        made._counts.decode_and_add(text.encode("ascii"))
        return made
