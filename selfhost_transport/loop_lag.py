"""How late an event loop is: the one sign of too much work that every process can see by itself."""

from __future__ import annotations

import asyncio
from typing import Final

_TICK_S: Final = 0.02
# How much of the value a new measurement makes: a single pause is no overload.
_NEW: Final = 0.2


class LoopLag:
    """Measures how late the running loop's timers are, as a moving average. Runs from `start` to `stop`."""

    __slots__ = ("_timer", "seconds")

    def __init__(self) -> None:
        # The average, in seconds.
        self.seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure the running loop."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_TICK_S, self._tick, loop, loop.time() + _TICK_S)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def note(self, late_s: float) -> None:
        """One measurement. A long pause counts as several ticks that did not come."""
        weight = 1 - (1 - _NEW) ** (1 + late_s / _TICK_S / 4)
        self.seconds += (late_s - self.seconds) * weight

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self.note(max(0.0, now - due))
        self._timer = loop.call_later(_TICK_S, self._tick, loop, now + _TICK_S)
