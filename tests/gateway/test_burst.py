"""How many turns may wait longer than they should, and when as many may again."""

from __future__ import annotations

from gateway.commands.burst import CALM_S, Burst


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_ends_and_is_refilled_by_calm_only() -> None:
    clock = Clock()
    burst = Burst(3, clock)
    for _ in range(3):
        assert burst.allowed
        burst.take()
    assert not burst.allowed
    # An overload that lasts: each refusal keeps the next burst away.
    for _ in range(5):
        clock.now += CALM_S / 2
        assert not burst.allowed
        burst.refused()
    clock.now += CALM_S + 0.1
    assert burst.allowed
    for _ in range(3):
        burst.take()
    assert not burst.allowed


def test_none_at_all() -> None:
    assert not Burst(0).allowed
