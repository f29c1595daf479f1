"""Histograms: precision, merging, and what is drawn of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfhost_transport.loadtest.histogram import Histogram, Summary

# How long an example takes is the package's affair, and the machine's.
examples = settings(deadline=None, max_examples=40)
durations = st.lists(st.floats(1e-6, 200), min_size=1, max_size=60)


def filled(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@examples
@given(values=durations)
def test_percentiles_are_within_a_thousandth(values: list[float]) -> None:
    values.sort()
    summary = filled(values).summary()
    assert summary.count == len(values)
    # A microsecond is the smallest step.
    assert summary.max == pytest.approx(values[-1] * 1e3, rel=2e-3, abs=2e-3)
    middle = values[max(0, -(-len(values) // 2) - 1)]
    assert summary.p50 == pytest.approx(middle * 1e3, rel=2e-3, abs=2e-3)


@examples
@given(first=durations, second=durations)
def test_merging_encoded_histograms_is_recording_everything(first: list[float], second: list[float]) -> None:
    merged = Histogram.decode(filled(first).encode())
    merged.merge(Histogram.decode(filled(second).encode()))
    assert merged.summary() == filled([*first, *second]).summary()


@examples
@given(values=durations, width=st.floats(0.5, 500))
def test_bars_count_every_value_once(values: list[float], width: float) -> None:
    bars = filled(values).bars(width * 1e3)
    assert sum(count for _, count in bars) == len(values)
    assert [start for start, _ in bars] == [width * 1e3 * index for index in range(len(bars))]


def test_values_out_of_range_count_as_its_ends() -> None:
    summary = filled([-1.0, 1e9]).summary()
    assert summary.count == 2
    assert summary.max == pytest.approx(300_000, rel=2e-3)


def test_nothing_recorded() -> None:
    empty = Histogram()
    assert empty.summary() == Summary()
    assert empty.curve() == []
    assert empty.bars(1.0) == []
    assert empty.percentile(99) == 0.0


def test_curve_shows_no_more_nines_than_were_measured() -> None:
    curve = filled([0.001 * number for number in range(1, 101)]).curve()
    assert curve[-1][0] <= 99
    assert [ms for _, ms in curve] == sorted(ms for _, ms in curve)
