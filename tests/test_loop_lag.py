"""How late an event loop is: looked at seldom while it is on time, and often as soon as it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from selfhost_transport.loop_lag import LoopLag


class Clockwork:
    """A loop with one timer, which fires `late_s` after its time."""

    def __init__(self) -> None:
        self.now = self.late_s = 0.0
        self.pauses: list[float] = []
        self._fire: Callable[[], None] = lambda: None

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> None:
        self.pauses.append(delay)
        due = self.now + delay

        def fire() -> None:
            self.now = due + self.late_s
            callback(*args)

        self._fire = fire

    def run(self, ticks: int) -> list[float]:
        """The pauses that follow so many ticks."""
        self.pauses.clear()
        for _ in range(ticks):
            self._fire()
        return self.pauses


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> Clockwork:
    loop = Clockwork()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: cast(asyncio.AbstractEventLoop, loop))
    return loop


def test_a_loop_that_is_on_time_is_looked_at_ten_times_a_second(clockwork: Clockwork) -> None:
    lag = LoopLag()
    lag.start()
    assert clockwork.run(20) == [0.1] * 20
    assert lag.seconds == 0


def test_a_loop_that_is_late_is_looked_at_often_until_it_has_been_on_time_for_a_while(
    clockwork: Clockwork,
) -> None:
    lag = LoopLag()
    lag.start()
    clockwork.run(5)
    clockwork.late_s = 0.08
    assert clockwork.run(1) == [0.02]
    assert clockwork.run(30) == [0.02] * 30
    assert lag.seconds == pytest.approx(0.08, rel=0.01)
    clockwork.late_s = 0.0
    assert clockwork.run(8) == [0.02] * 8
    assert clockwork.run(20)[-1] == 0.1
