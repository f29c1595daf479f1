"""Many turns at once may wait longer than usual; when it goes on, they are refused as in any overload (P13)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

LASTS_S: Final = 5.0
"""How long a burst lasts at most."""
CALM_S: Final = 10.0
"""After so long without a turn too many, there may be another burst."""


class Burst:
    """Whether turns come in a burst, or more of them than can be taken. `clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
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
