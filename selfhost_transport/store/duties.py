"""Work that one process does for all of a deployment, so that its cost does not grow with their number.

Whoever comes first in a period does it. Nobody holds a duty for longer: when that process dies, another one is first in the
next period.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.names import part

ANSWER_S: Final = 0.5
"""How long one look at all buckets may take: what a server that is away has is left to the next one."""


class Duties:
    """The duties of a deployment, and looking at all of its buckets. Raises StoreUnavailable, StoreFull."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys

    async def falls_to_me(self, name: str, period_ms: int) -> bool:
        """Whether this process is the first that asks within the period."""
        reply = await self._redis.command(
            "SET", f"{self._keys.prefix}:duty:{name}", "1", "NX", "PX", period_ms
        )
        return reply is not None

    async def buckets_with(self, *names: str) -> list[int]:
        """Buckets that have one of these keys."""
        return await self._found(lambda base: ("EXISTS", *(f"{base}{name}" for name in names)))

    async def announce(self, agent: str) -> None:
        """Wake the workers of an agent once more, for the turns that wait for them."""
        # An empty queue is kept, so its existence says nothing.
        waiting = await self._found(lambda base: ("XLEN", f"{base}q:{agent}"))
        channels = (f"{self._keys.base(bucket)}ctl" for bucket in waiting)
        await asyncio.gather(*(self._redis.notify(channel, f"wake {part(agent)}") for channel in channels))

    async def buckets_due(self, name: str, now_ms: int) -> list[int]:
        """Buckets whose ZSET of this name has something due at a time."""
        return await self._found(lambda base: ("ZCOUNT", f"{base}{name}", "-inf", now_ms))

    async def _found(self, command: Callable[[str], tuple[Any, ...]]) -> list[int]:
        commands = [command(base) for base in self._keys.bases()]
        replies = await self._redis.batch(commands, within_s=ANSWER_S)
        return [bucket for bucket, reply in enumerate(replies) if isinstance(reply, int) and reply > 0]
