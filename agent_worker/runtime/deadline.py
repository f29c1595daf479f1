"""How long a turn may be active, and how long it may be silent (TRN-23, STR-14)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from agent_worker.user_code.errors import deadline_error, silence_error
from selfhost_transport.errors import ErrorInfo

_LOOKS_PER_WINDOW = 4
"""How often silence is checked in its length: the error comes at most a quarter late."""


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Seconds; 0: no limit. `silence_s`: without any output."""

    deadline_s: float = 0.0
    silence_s: float = 0.0


class Watch:
    """Waits for the end of an agent's work, as long as its limits allow; one per attempt."""

    def __init__(self, limits: TurnLimits, output_count: Callable[[], int]) -> None:
        self._limits = limits
        self._output_count = output_count
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._seen = -1
        self._seen_at = self._began

    async def first_of(self, futures: Iterable[asyncio.Future[Any]]) -> ErrorInfo | None:
        """Wait until one of them is done, or until a limit is reached: then the error to end the turn with.

        Cancels nothing; a function that ignores its cancellation must not be waited for.
        """
        waited = set(futures)
        while True:
            done, _ = await asyncio.wait(waited, timeout=self._timeout(), return_when=asyncio.FIRST_COMPLETED)
            if done:
                return None
            if error := self._exceeded():
                return error

    def _timeout(self) -> float | None:
        timeouts = []
        if self._limits.deadline_s:
            timeouts.append(self._began + self._limits.deadline_s - self._loop.time())
        if self._limits.silence_s:
            timeouts.append(self._limits.silence_s / _LOOKS_PER_WINDOW)
        return max(0.0, min(timeouts)) if timeouts else None

    def _exceeded(self) -> ErrorInfo | None:
        now, limits = self._loop.time(), self._limits
        if limits.deadline_s and now >= self._began + limits.deadline_s:
            return deadline_error(limits.deadline_s)
        if limits.silence_s:
            count = self._output_count()
            if count != self._seen:
                self._seen, self._seen_at = count, now
            elif now >= self._seen_at + limits.silence_s:
                return silence_error(limits.silence_s)
        return None
