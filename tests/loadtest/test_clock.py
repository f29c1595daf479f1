"""The offset of another clock, from exchanges with delays on both ways."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selfhost_transport.loadtest.clock import ClockOffset

delays = st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, 0.2)), min_size=1, max_size=20)


@given(offset=st.floats(-100, 100), exchanges=delays)
def test_the_true_offset_is_within_the_stated_uncertainty(
    offset: float, exchanges: list[tuple[float, float]]
) -> None:
    clock = ClockOffset(shared=False)
    for number, (there, back) in enumerate(exchanges):
        sent = 1_000_000.0 + number
        stamp_ms = int((sent + there + offset) * 1e3)
        clock.observe(sent, sent + there + back, stamp_ms)
    # A stamp of whole milliseconds is off by half of one at most.
    assert abs(clock.offset_s - offset) <= clock.uncertainty_s + 0.0006


def test_a_shared_clock_has_no_offset() -> None:
    clock = ClockOffset(shared=True)
    clock.observe(10.0, 10.1, 99_000)
    assert (clock.offset_s, clock.uncertainty_s) == (0.0, 0.0)
