"""A short burst of turns may wait longer than usual; a longer one is refused like any overload (P13)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

LASTS_S: Final = 5.0
"""How long a burst lasts at most."""
CALM_S: Final = 10.0
"""Time without a refused turn after which another burst is allowed."""


LONGEST_CLOSED_S: Final = 0.2
"""So long sends are refused without asking the store, once it has refused one for the same queue."""
_KEPT: Final = 1024


class Burst:
    """Whether turns come in a burst, or more of them than can be taken. `clock` in seconds.

    A queue is named by its agent and its bucket.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Queues that the store has found too long, and until when that is taken for granted.
        self._closed: dict[tuple[str, int], float] = {}
        # When turns began to be too many, and when one was the last time.
        self._began = self._pressed = -math.inf

    @property
    def allowed(self) -> bool:
        """Whether a turn may wait longer than usual."""
        now = self._clock()
        return now - self._pressed > CALM_S or now - self._began <= LASTS_S

    def press(self) -> None:
        """A turn was too many: it waits longer than usual, or was refused."""
        now = self._clock()
        if now - self._pressed > CALM_S:
            self._began = now
        self._pressed = now

    def close(self, queue: tuple[str, int], retry_ms: int) -> None:
        """The store has refused a turn for a queue. Refusing the next ones costs hardly anything then."""
        self.press()
        if len(self._closed) >= _KEPT:
            self._closed.clear()
        self._closed[queue] = self._clock() + min(retry_ms / 1000, LONGEST_CLOSED_S)

    def closed_s(self, queue: tuple[str, int]) -> float:
        """For how long a queue takes nothing more; 0 when it may."""
        until = self._closed.get(queue)
        if until is None:
            return 0.0
        left = until - self._clock()
        if left <= 0:
            del self._closed[queue]
        return max(0.0, left)
