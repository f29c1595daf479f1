"""How many turns a worker runs at once while its event loop is late: as many as it does, no more (P13)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

LATE_S: Final = 0.05
"""A loop that is later than this on average has as much to do as it can."""
VERY_LATE_S: Final = 0.25
_GROWS_EVERY_S, _GROWS_BY, _GROWS_LATE_BY = 0.1, 1.1, 1.02
_SHRINKS_EVERY_S, _SHRINKS_BY = 1.0, 0.9
_FEWEST: Final = 4


class TurnPace:
    """The limit of running turns that `lag`, in seconds, allows. None: no other than the worker's places.

    While the loop is late, little more than a turn for each that ends is taken; while it is very late, less. Taking more
    would make those that run late, and let turns wait in this process, where no metric shows them, instead of in the queue.
    Taking fewer would waste the capacity where others keep the machine busy. `clock` in seconds.
    """

    def __init__(self, lag: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._lag = lag
        self._clock = clock
        self.limit: float | None = None
        self._changed = 0.0

    def room(self, running: int, places: int) -> int:
        """How many more turns may be started beside those that run, of `places` in all."""
        self._adapt(running, places)
        most = places if self.limit is None else min(places, int(self.limit))
        return max(0, most - running)

    def _adapt(self, running: int, places: int) -> None:
        lag, now = self._lag(), self._clock()
        if lag > LATE_S:
            if self.limit is None:
                self._set(max(_FEWEST, running), now)
            elif lag > VERY_LATE_S:
                if now - self._changed >= _SHRINKS_EVERY_S:
                    self._set(max(_FEWEST, self.limit * _SHRINKS_BY), now)
            elif now - self._changed >= _GROWS_EVERY_S and running >= int(self.limit):
                self._set(min(places, self.limit * _GROWS_LATE_BY + 1), now)
        elif self.limit is not None and now - self._changed >= _GROWS_EVERY_S:
            grown = self.limit * _GROWS_BY + 1
            self._set(None if grown >= places else grown, now)

    def _set(self, limit: float | None, now: float) -> None:
        self.limit, self._changed = limit, now
