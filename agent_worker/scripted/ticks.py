"""Times at which scripted tokens are due: all streams of a loop share one timer per millisecond.

A provider's tokens arrive by a socket, many with one wake-up. A timer for each would cost more than the rest of a
token's way, and would measure the clock of this model.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

TICK_S: Final = 0.001
"""Tokens that are due within the same tick come together, at its end."""

_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Ticks] = WeakKeyDictionary()


class Ticks:
    """Wakes those who wait for a time of the loop, at the first tick that is not before it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, list[tuple[asyncio.Future[Any], Any]]] = {}

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Ticks:
        """The ticks that all streams of a loop share."""
        found = _of_loop.get(loop)
        if found is None:
            found = _of_loop[loop] = cls(loop)
        return found

    def at(self, due: float, result: T) -> asyncio.Future[T]:
        """A future that has the result at `due`, a time of the loop, or within a tick after it."""
        tick = int(due / TICK_S) + 1
        future: asyncio.Future[T] = self._loop.create_future()
        waiting = self._waiting.get(tick)
        if waiting is not None:
            waiting.append((future, result))
        else:
            self._waiting[tick] = [(future, result)]
            self._loop.call_at(tick * TICK_S, self._fire, tick)
        return future

    def _fire(self, tick: int) -> None:
        for future, result in self._waiting.pop(tick):
            # It may have been cancelled.
            if not future.done():
                future.set_result(result)
