"""Which workers serve which agent: shows when no worker is there to answer (PRE-11)."""

from __future__ import annotations

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.keys import Keyspace

_FREE = " free-models"
"""Stands behind the name of a worker whose models cost nothing; workers of older versions never have it."""


class Fleet:
    """Workers by the agents they serve. Raises StoreUnavailable, StoreFull."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys

    async def announce(self, agent: str, worker: str, ttl_ms: int, *, free_models: bool = False) -> int:
        """A worker serves an agent for another `ttl_ms`; 0: no longer. Returns how many workers serve it.

        `free_models`: its models cost nothing, so that it may be put under load without asking.
        """
        worker += _FREE if free_models else ""
        call = scripts.call("fleet", workers=self._keys.fleet(agent), worker=worker, ttl_ms=ttl_ms)
        count: int = await self._redis.call(*call)
        return count

    async def size(self, agent: str) -> int:
        """How many workers serve an agent."""
        count: int = await self._redis.command("ZCOUNT", self._keys.fleet(agent), await self._alive(), "+inf")
        return count

    async def workers(self, agent: str) -> list[str]:
        """The names of the workers that serve an agent."""
        return [member.removesuffix(_FREE) for member in await self._members(agent)]

    async def has_free_models(self, agent: str) -> bool:
        """Whether workers serve an agent, and the models of all of them cost nothing."""
        members = await self._members(agent)
        return bool(members) and all(member.endswith(_FREE) for member in members)

    async def _members(self, agent: str) -> list[str]:
        found = await self._redis.command(
            "ZRANGEBYSCORE", self._keys.fleet(agent), await self._alive(), "+inf"
        )
        return [member.decode() for member in found]

    async def _alive(self) -> str:
        """The lowest score of a worker that has not fallen silent."""
        seconds, micros = await self._redis.command("TIME")
        return f"({int(seconds) * 1000 + int(micros) // 1000}"
