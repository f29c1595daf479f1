"""The clock of gathered tokens: one timer per tick of the loop, however many turns are streaming."""

from __future__ import annotations

import asyncio
from typing import Protocol

from selfhost_transport.redis_io.connection import RedisConnection

TICK_S = 0.005
"""Windows end on ticks: texts that are due together leave in one write to Redis."""
CLUSTER_TICK_S = 0.02
"""The same where each server of a Cluster has to be woken for its share of them."""
_SLACK = 1 / 8
"""How much of a tick a text that is due just after it leaves early: the loop was late at the tick before."""


class Gathered(Protocol):
    """Something that holds tokens until its window is over."""

    def flush(self) -> None:
        """Send what was gathered."""


class FlushTimer:
    """Flushes gathered texts at the end of their window. `window_s` 0: nothing is ever gathered (STR-8).

    `tick_s`: the pause between two ticks, at most half a window.
    """

    def __init__(self, window_ms: int, tick_s: float = TICK_S) -> None:
        self.window_s = window_ms / 1000
        self._tick_s = min(tick_s, max(self.window_s / 2, TICK_S))
        # With the short tick a text would hardly wait shorter, and be written more often.
        self._slack = _SLACK if self._tick_s > TICK_S else 0.0
        self._due: dict[int, list[Gathered]] = {}

    def schedule(self, text: Gathered, due: float) -> None:
        """Flush `text` at the first tick after `due`, a time of the running loop."""
        tick = int(due / self._tick_s - self._slack) + 1
        waiting = self._due.get(tick)
        if waiting is not None:
            waiting.append(text)
            return
        self._due[tick] = [text]
        asyncio.get_running_loop().call_at(tick * self._tick_s, self._fire, tick)

    @property
    def waiting(self) -> int:
        """Texts that hold tokens back."""
        return sum(len(texts) for texts in self._due.values())

    def _fire(self, tick: int) -> None:
        for text in self._due.pop(tick, ()):
            text.flush()


def tick_of(redis: RedisConnection) -> float:
    """The pause between two ticks that suits a connection."""
    return CLUSTER_TICK_S if redis.in_cluster else TICK_S
