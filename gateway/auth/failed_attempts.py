"""Tokens that are refused again and again over REST, and how that ends (AUT-11).

A token error makes SDKs renew the token and send the request again. ably-js 2.28 then sends the old token once more,
without pause and without end. It is slowed down, and gets an error that is not a token error after a while: its
request fails, and the next one carries the new token.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

AT_ONCE: Final = 3
"""Refusals of a token that are answered without a pause: requests that were sent side by side."""
PAUSES_S: Final = (0.25, 0.5, 1.0)
"""Before the answers after those; the last one stays."""
PATIENCE_S: Final = 2.0
"""How long the same token may come again and again before its requests fail for good."""
_QUIET_S: Final = 3.0
_KEPT: Final = 10_000


@dataclass(slots=True)
class _Row:
    """Refusals of one token that followed each other; times in seconds."""

    first: float
    last: float
    count: int = 0


class FailedAttempts:
    """What this process has refused lately. `clock` and `pause` in seconds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._rows: OrderedDict[bytes, _Row] = OrderedDict()

    async def note(self, token: str) -> bool:
        """Note a refusal; returns when it may be answered. False: the client is not going to send another token."""
        row, now = self._row(token), self._clock()
        if now - row.first > PATIENCE_S:
            return False
        row.count += 1
        if row.count > AT_ONCE:
            await self._pause(PAUSES_S[min(row.count - AT_ONCE, len(PAUSES_S)) - 1])
        return True

    def _row(self, token: str) -> _Row:
        name, now = sha256(token.encode()).digest(), self._clock()
        row = self._rows.pop(name, None)
        if row is None or now - row.last > _QUIET_S:
            row = _Row(now, now)
        row.last = now
        self._rows[name] = row
        if len(self._rows) > _KEPT:
            self._rows.popitem(last=False)
        return row
