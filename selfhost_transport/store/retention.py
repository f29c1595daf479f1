"""Taking out of the history what is older than its session keeps it (HIS-6)."""

from __future__ import annotations

import asyncio
from typing import Final

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions

PUBLISHES_PER_STEP: Final = 100
"""Publishes that one script takes out: keeps it short (P9)."""


class Retention:
    """Any process may sweep, several at once too. Raises StoreUnavailable."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, options: StoreOptions | None = None) -> None:
        self._redis = redis
        self._keys = keys
        self._options = options or StoreOptions()

    async def sweep(self) -> int:
        """Take out everything that is due, in all buckets. Returns how many publishes that were."""
        return sum(await asyncio.gather(*(self._sweep(base) for base in self._keys.bases())))

    async def _sweep(self, base: str) -> int:
        script, total = scripts.load("trim_history"), 0
        arguments = (base, "", PUBLISHES_PER_STEP, self._options.unused_session_ms)
        while (taken := await self._redis.call(script, [f"{base}retention"], arguments)) is not None:
            total += taken
        return total
