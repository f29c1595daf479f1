"""The clock of gathered tokens: one timer per tick of the loop, however many turns are streaming."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

TICK_S = 0.005
"""Windows end on ticks: texts that are due together leave in one write to Redis."""
_FEWEST: Final = 4
"""Ticks in a window that is divided among servers: one tick is little of it."""


class Gathered(Protocol):
    """Something that holds tokens until its window is over."""

    def flush(self) -> None:
        """Send what was gathered."""


class FlushTimer:
    """Flushes gathered texts at the end of their window. `window_s` 0: nothing is ever gathered (STR-8)."""

    def __init__(self, window_ms: int) -> None:
        self.window_s = window_ms / 1000
        # When the loop was last seen to turn, monotonic: since then a source may have computed without a pause.
        self.turned_at = 0.0
        self._due: dict[int, list[Gathered]] = {}
        # From the end of one window to the end of the next.
        self._ticks = int(self.window_s / TICK_S) + 1

    def phase_of(self, place: float | None) -> int | None:
        """On which tick of each window the texts of a place are due together; None: on any. See `RedisConnection.place_of`."""
        return None if place is None or self._ticks < _FEWEST else int(place * self._ticks)

    def schedule(self, text: Gathered, due: float, phase: int | None = None) -> None:
        """Flush `text` at the first tick that is not before `due`, a time of the running loop.

        Its windows are a tick shorter until they end in the `phase`: a server is then woken for many texts at once.
        """
        tick = int(due / TICK_S) + 1
        if phase is not None and tick % self._ticks != phase:
            tick -= 1
        waiting = self._due.get(tick)
        if waiting is not None:
            waiting.append(text)
            return
        self._due[tick] = [text]
        asyncio.get_running_loop().call_at(tick * TICK_S, self._fire, tick)

    @property
    def waiting(self) -> int:
        """Texts that hold tokens back."""
        return sum(len(texts) for texts in self._due.values())

    def _fire(self, tick: int) -> None:
        for text in self._due.pop(tick, ()):
            text.flush()
