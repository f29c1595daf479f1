"""Removes messages that are older than their session's retention (HIS-6)."""

from __future__ import annotations

import asyncio
from typing import Final

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.duties import Duties
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions

PUBLISHES_PER_STEP: Final = 100
"""Publishes that one script takes out: keeps it short (P9)."""
DUTY_MS: Final = 900
"""Shorter than a gateway's pause between two sweeps."""


class Retention:
    """Any process may sweep, several at once too. Raises StoreUnavailable."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, options: StoreOptions | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._options = options or StoreOptions()
        self._duties = Duties(redis, keys)

    async def sweep(self) -> int:
        """Take out everything that is due, in all buckets. Returns how many publishes that were."""
        due = await self._duties.buckets_with("retention")
        return sum(await asyncio.gather(*(self._sweep(self._keys.base(bucket)) for bucket in due)))

    async def falls_to_me(self) -> bool:
        """Whether this process is the one of all that sweeps now. Raises StoreUnavailable."""
        return await self._duties.falls_to_me("retention", DUTY_MS)

    async def _sweep(self, base: str) -> int:
        total = 0
        while (taken := await self.step(base)) is not None:
            total += taken
        return total

    async def step(self, base: str) -> int | None:
        """One short script for a bucket. Returns how many publishes it took; None when nothing is due."""
        taken: int | None = await self._redis.call(
            *scripts.call(
                "trim_history", sessions=f"{base}retention", base=base, limit=PUBLISHES_PER_STEP,
                empty_ms=self._options.empty_session_ms,
            )
        )  # fmt: skip
        return taken
