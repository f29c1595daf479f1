"""How long many turns at once may wait longer than usual, and when they may again."""

from __future__ import annotations

from gateway.commands.burst import CALM_S, LASTS_S, Burst


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
