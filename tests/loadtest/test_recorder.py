"""What a process records, and that several of them add up."""

from __future__ import annotations

import pytest

from selfhost_transport.loadtest.histogram import Histogram
from selfhost_transport.loadtest.recorder import (
    MAX_VIOLATIONS,
    Metric,
    Recorder,
    ViolationKind,
    add_up,
)


def test_only_the_window_is_timed_but_everything_is_verified() -> None:
    recorder = Recorder()
    recorder.record(Metric.SEND_ACK, 1.0)
    recorder.violation(ViolationKind.LOST, "s", "t", "before")
    recorder.begin()
    recorder.record(Metric.SEND_ACK, 0.002)
    recorder.end()
    recorder.record(Metric.SEND_ACK, 1.0)
    recording = recorder.recording()
    assert Histogram.decode(recording.histograms[Metric.SEND_ACK]).summary().max == pytest.approx(2, rel=0.01)
    assert recording.violation_counts == {"lost": 1}


def test_every_token_of_a_chunk_counts_with_its_own_latency() -> None:
    recorder = Recorder()
    recorder.begin()
    recorder.arrived(100.2, tokens=3, delivery=0.001, latency=0.005, spacing=0.020)
    recorder.arrived(101.2, tokens=1, delivery=0.001, latency=0.007, spacing=0.020)
    recording = recorder.recording()
    tokens = Histogram.decode(recording.histograms[Metric.TOKEN]).summary()
    assert tokens.count == 4
    # 5, 25 and 45 ms: the first of three tokens was due 40 ms before the last.
    assert tokens.max == pytest.approx(45, rel=0.01)
    assert {second: found.tokens for second, found in recording.seconds.items()} == {100: 3, 101: 1}


def test_recordings_add_up() -> None:
    recordings = []
    for number in (1, 2):
        recorder = Recorder()
        recorder.begin()
        recorder.record(Metric.CANCEL_ACK, number / 1000)
        recorder.arrived(50.0, number, 0.001, 0.001, 0.0)
        recorder.outcomes["complete"] += number
        recorder.violation(ViolationKind.LOST, "s", "t", "")
        recordings.append(recorder.recording())
    total = add_up(recordings)
    assert Histogram.decode(total.histograms[Metric.CANCEL_ACK]).count == 2
    assert total.seconds[50].tokens == 3
    assert Histogram.decode(total.seconds[50].token).count == 3
    assert total.outcomes == {"complete": 3}
    assert total.violation_counts == {"lost": 2}


def test_violations_are_all_counted_and_some_kept() -> None:
    recorder = Recorder()
    for _ in range(MAX_VIOLATIONS + 5):
        recorder.violation(ViolationKind.DUPLICATE, "s", "t", "")
    total = add_up([recorder.recording(), recorder.recording()])
    assert total.violation_counts == {"duplicate": 2 * (MAX_VIOLATIONS + 5)}
    assert len(total.violations) == MAX_VIOLATIONS
