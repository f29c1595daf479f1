"""Lag of an event loop: the one sign of overload that every process can measure itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

_TICK_S: Final = 0.02
# Being woken is most of what an idle process costs: one that is on time looks less often.
_CALM_TICK_S: Final = 0.1
_CALM_S: Final = 0.005
# How much of the value a new measurement makes: a single pause is no overload.
_NEW: Final = 0.2


LASTS_S: Final = 2.0
"""A shorter lag is a pause, or a passing rush such as many clients that reconnect at once."""


class LastingLag:
    """How late something is, in seconds, once it has been later than `limit_s` for `LASTS_S`; until then 0.

    `seconds` is how late it is at the moment; `look` is to be called often. `clock` in seconds.
    """

    def __init__(
        self, limit_s: float, seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit_s = limit_s
        self._seconds = seconds
        self._clock = clock
        self._since: float | None = None

    def look(self) -> None:
        """Look whether it is late."""
        if self._seconds() <= self._limit_s:
            self._since = None
        elif self._since is None:
            self._since = self._clock()

    @property
    def lasting_s(self) -> float:
        """How late it is, if that has lasted; else 0."""
        if self._since is None or self._clock() - self._since < LASTS_S:
            return 0.0
        return self._seconds()


class LoopLag:
    """Measures how late the running loop's timers are, as a moving average. Runs from `start` to `stop`."""

    __slots__ = ("_timer", "looked", "seconds")

    def __init__(self) -> None:
        # Called after each measurement.
        self.looked: Callable[[], None] = lambda: None
        # The average, in seconds.
        self.seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure the running loop."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_TICK_S, self._tick, loop, loop.time() + _TICK_S)

    def stop(self) -> None:
        """Stop measuring."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def note(self, late_s: float) -> None:
        """One measurement. A long pause counts as several ticks that did not come."""
        weight = 1 - (1 - _NEW) ** (1 + late_s / _TICK_S / 4)
        self.seconds += (late_s - self.seconds) * weight

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        late_s = max(0.0, now - due)
        self.note(late_s)
        self.looked()
        pause_s = _CALM_TICK_S if max(late_s, self.seconds) < _CALM_S else _TICK_S
        self._timer = loop.call_later(pause_s, self._tick, loop, now + pause_s)
