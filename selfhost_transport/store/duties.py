"""Work that one process does for all of a deployment, so that its cost does not grow with their number.

The process that comes first in a period does it. None holds a duty for longer: when that process dies, another one is first
in the next period.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from selfhost_transport.redis_io.batches import Batch
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.keys import Keyspace

ANSWER_S: Final = 0.5
"""How long one look at all buckets may take: what a server that is away has is left to the next one."""


class Duties:
    """The duties of a deployment, and looking at all of its buckets. Raises StoreUnavailable, StoreFull."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys
        self._batches: dict[tuple[str, ...], Batch] = {}

    async def falls_to_me(self, name: str, period_ms: int) -> bool:
        """Whether this process is the first that asks within the period."""
        reply = await self._redis.command(
            "SET", f"{self._keys.prefix}:duty:{name}", "1", "NX", "PX", period_ms
        )
        return reply is not None

    async def buckets_with(self, *names: str) -> list[int]:
        """Buckets that have one of these keys."""
        return await self._found(("EXISTS", *names), _is_some)

    async def buckets_with_turns(self, agent: str) -> list[int]:
        """Buckets in which turns wait for an agent."""
        # An empty queue is kept, so its existence says nothing.
        return await self._found(("XLEN", f"q:{agent}"), _is_some)

    async def buckets_due(self, name: str, now_ms: int) -> list[int]:
        """Buckets whose ZSET of this name has something due at a time."""
        # Not ZCOUNT: words that never change are packed once.
        return await self._found(
            ("ZRANGE", name), lambda reply: bool(reply) and float(reply[1]) <= now_ms, 0, 0, "WITHSCORES"
        )

    async def _found(
        self, command: tuple[str, ...], wanted: Callable[[Any], bool], *words: str | int
    ) -> list[int]:
        """Buckets whose reply is wanted. `command`: what it is, and the keys' names within the bucket."""
        batch = self._batches.get(command)
        if batch is None:
            name, *keys = command
            batch = self._batches[command] = self._redis.batch(
                [(name, *(f"{base}{key}" for key in keys), *words) for base in self._keys.bases()]
            )
        replies = await batch.ask(ANSWER_S)
        return [
            bucket
            for bucket, reply in enumerate(replies)
            if not isinstance(reply, Exception) and wanted(reply)
        ]


def _is_some(reply: int) -> bool:
    return reply > 0
