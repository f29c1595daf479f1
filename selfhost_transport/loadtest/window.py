"""When a run measures. All times are seconds since the epoch."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from selfhost_transport.loadtest.plan import Load


@dataclass(frozen=True, slots=True)
class Window:
    """`start`: the first sends; `begin` to `end`: the measured window; no turn is scheduled after `end`."""

    start: float
    begin: float
    end: float

    @classmethod
    def of(cls, load: Load, start: float) -> Window:
        """The window of a run that starts at a time."""
        begin = start + load.lead_s
        return cls(start, begin, begin + load.duration_s)

    def calm_from(self, load: Load) -> float:
        """When the offered rate falls."""
        return self.end - load.calm_s


async def until(moment: float) -> None:
    """Sleep until a time of the wall clock; returns at once when it has passed."""
    await asyncio.sleep(max(0.0, moment - time.time()))
