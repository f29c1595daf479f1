"""Which workers serve which agent: shows when no worker is there to answer (PRE-11)."""

from __future__ import annotations

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.keys import Keyspace


class Fleet:
    """Workers by the agents they serve. Raises StoreUnavailable, StoreFull."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys

    async def tell(self, agent: str, worker: str, ttl_ms: int) -> int:
        """A worker serves an agent for another `ttl_ms`; 0: no longer. Returns how many workers serve it."""
        call = scripts.call("fleet", workers=self._keys.fleet(agent), worker=worker, ttl_ms=ttl_ms)
        count: int = await self._redis.call(*call)
        return count

    async def size(self, agent: str) -> int:
        """How many workers serve an agent."""
        seconds, micros = await self._redis.command("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        count: int = await self._redis.command("ZCOUNT", self._keys.fleet(agent), f"({now_ms}", "+inf")
        return count
