"""Notifications that were read and not fanned out yet: reading never waits for the work that follows it (P13).

Redis drops a subscriber that reads more slowly than others write. What is read waits here, in bounded time slices and
bounded bytes; a session with more than its share is read from the log instead, where it is conflated.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from gateway.fanout.feed import Counters
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.accelerator import hand_out

SLICE_S: Final = 0.002
"""How long fan-out may continue before the event loop reads and writes again."""
MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes that wait for all sessions together."""
MAX_OF_ONE: Final = 1024 * 1024
"""Bytes that wait for one session."""
_AT_ONCE: Final = 16
AT_ONCE: Final = 256
"""Notifications of one read that are fanned out with it, where that takes no decision: about as long as a slice."""


class Reader(Protocol):
    """Who fans the notifications of one session out. `waits`: some of them are in the inbox."""

    waits: bool

    def notify(self, payload: bytes) -> None:
        """Take one notification."""

    def jump(self) -> None:
        """Notifications were dropped: continue from the end of the log."""


class _Waiting:
    """What waits for one reader."""

    __slots__ = ("payloads", "read_at", "size")

    def __init__(self) -> None:
        self.payloads: deque[bytes] = deque()
        # When each of them was read.
        self.read_at: deque[float] = deque()
        self.size = 0


class Inbox:
    """Hands notifications to their readers, in order for each. A context around those that were read together.

    `together` is entered around each slice. `clock` in seconds.
    """

    def __init__(
        self,
        together: WriteBatch,
        counters: Counters | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        max_of_one: int = MAX_OF_ONE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._together = together
        self._counters = counters
        self._max_bytes = max_bytes
        self._max_of_one = max_of_one
        self._clock = clock
        # The reader whose turn it is comes first.
        self._waiting: dict[Reader, _Waiting] = {}
        self.size = 0
        self._reading = self._scheduled = False
        # How many of this read may still be fanned out at once.
        self._left = 0
        # When what arrives now was read.
        self._now = 0.0

    @property
    def behind_s(self) -> float:
        """The age of what waits longest, in seconds: an inbox that is never empty but moves is not behind."""
        for waiting in self._waiting.values():
            # Readers take turns, so the first of them has waited longest.
            return self._clock() - waiting.read_at[0]
        return 0.0

    def __enter__(self) -> None:
        self._together.__enter__()
        self._reading = True
        self._left = AT_ONCE
        self._now = self._clock()

    def __exit__(self, *_: object) -> None:
        self._reading = False
        try:
            if self._waiting and not self._scheduled:
                self._work()
        finally:
            self._together.__exit__()

    def hand_out(self, replies: list[Any], at: int, callbacks: dict[bytes, Any]) -> int:
        """Fan out, from index `at` on, appends for which nothing has to be looked at. Returns the first index that is left."""
        until, count, written_ms = hand_out(replies, at, at + self._left, callbacks, self._together.buffers)
        if until > at:
            self._left -= until - at
            if self._counters is not None:
                self._counters.delivered(count)
                self._counters.fanned_out(written_ms, until - at)
        return until

    def add(self, reader: Reader, payload: bytes) -> None:
        """One notification was read."""
        waiting = self._waiting.get(reader)
        if waiting is None:
            if not self._reading and not self._waiting:
                reader.notify(payload)
                return
            waiting = self._waiting[reader] = _Waiting()
            reader.waits = True
        waiting.payloads.append(payload)
        waiting.read_at.append(self._now if self._reading else self._clock())
        waiting.size += len(payload)
        self.size += len(payload)
        if waiting.size > self._max_of_one or self.size > self._max_bytes:
            self.forget(reader)
            reader.jump()
        if not self._reading and not self._scheduled:
            self._schedule()

    def forget(self, reader: Reader) -> None:
        """Drop what waits for a reader."""
        waiting = self._waiting.pop(reader, None)
        reader.waits = False
        if waiting is not None:
            self.size -= waiting.size

    def _work(self) -> None:
        self._scheduled = False
        until = self._clock() + SLICE_S
        with self._together:
            while self._waiting:
                self._serve_first()
                if self._clock() > until:
                    break
        self._schedule()

    def _serve_first(self) -> None:
        """A few notifications of the first reader, which then is the last."""
        reader, waiting = next(iter(self._waiting.items()))
        del self._waiting[reader]
        payloads = waiting.payloads
        for _ in range(min(_AT_ONCE, len(payloads))):
            payload = payloads.popleft()
            waiting.read_at.popleft()
            waiting.size -= len(payload)
            self.size -= len(payload)
            reader.notify(payload)
        if payloads:
            self._waiting[reader] = waiting
        else:
            reader.waits = False

    def _schedule(self) -> None:
        if self._waiting:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._work)
