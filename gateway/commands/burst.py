"""What many turns at once may take beyond the pace of the workers: a burst waits, a lasting overload is refused (P13)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

CALM_S: Final = 10.0
"""After so long without a turn too many, the next burst may be as large as the first one."""


class Burst:
    """`most` turns may wait longer than they should. `clock` in seconds."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = self._left = most
        self._clock = clock
        # When a turn was too many the last time.
        self._pressed = -CALM_S

    @property
    def allowed(self) -> bool:
        """Whether one more may wait too long."""
        if self._left < self._most and self._clock() - self._pressed > CALM_S:
            self._left = self._most
        return self._left > 0

    def take(self) -> None:
        """A turn was accepted that waits too long."""
        self._left -= 1
        self.refused()

    def refused(self) -> None:
        """A turn was too many."""
        self._pressed = self._clock()
