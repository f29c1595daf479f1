"""How long many turns at once may wait longer than usual, and when they may again."""

from __future__ import annotations

from gateway.commands.burst import CALM_S, LASTS_S, LONGEST_CLOSED_S, Burst


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_ends_and_only_calm_allows_another() -> None:
    clock = Clock()
    burst = Burst(clock)
    assert burst.allowed
    burst.press()
    clock.now += LASTS_S
    assert burst.allowed
    burst.press()
    clock.now += 0.1
    assert not burst.allowed
    # An overload that lasts: each turn too many keeps the next burst away.
    for _ in range(5):
        burst.press()
        clock.now += CALM_S - 0.1
        assert not burst.allowed
    clock.now += 0.2
    assert burst.allowed
    burst.press()
    clock.now += LASTS_S
    assert burst.allowed


def test_a_queue_that_was_too_long_is_not_asked_about_for_a_moment() -> None:
    clock = Clock()
    burst = Burst(clock)
    burst.close(("a", 1), 60_000)
    assert 0 < burst.closed_s(("a", 1)) < LONGEST_CLOSED_S + 0.01
    assert burst.closed_s(("a", 2)) == burst.closed_s(("b", 1)) == 0
    clock.now += LONGEST_CLOSED_S + 0.001
    assert burst.closed_s(("a", 1)) == 0
    # It was a turn too many, as any other.
    clock.now += LASTS_S
    assert not burst.allowed


def test_queues_that_were_too_long_do_not_add_up() -> None:
    burst = Burst(Clock())
    for number in range(10_000):
        burst.close((f"agent-{number}", 0), 100)
    assert len(burst._closed) <= 1024
