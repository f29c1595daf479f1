"""What a deployment works on at this moment, without scanning keys: from its leases, queues and registered workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.fleet import Fleet
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.names import part, split_pair

_MOST_OF_A_BUCKET = 500


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    """A worker, and the agents that it serves."""

    worker: str
    agents: tuple[str, ...]


class LiveSessions:
    """Reads the deployment's present work. Raises StoreUnavailable."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys

    async def turns(self, agents: Iterable[str]) -> list[tuple[str, str]]:
        """Session and id of the turns that run, or wait for a worker of these agents; at most 500 of each bucket."""
        names = sorted(set(agents))
        found = await asyncio.gather(*(self._of_bucket(base, names) for base in self._keys.bases()))
        return [pair for pairs in found for pair in pairs]

    async def names(self, agents: Iterable[str], prefix: str = "") -> list[str]:
        """Sessions that begin with `prefix` and have attachments, or turns that run, wait for a worker or have a deadline."""
        names = sorted(set(agents))
        found = await asyncio.gather(*(self._used(base, names) for base in self._keys.bases()))
        return sorted({name for some in found for name in some if name.startswith(prefix)})

    async def workers(self, agents: Iterable[str]) -> list[RegisteredWorker]:
        """The workers that serve these agents."""
        serves: dict[str, list[str]] = {}
        fleet = Fleet(self._redis, self._keys)
        for agent in sorted(set(agents)):
            for worker in await fleet.workers(agent):
                serves.setdefault(worker, []).append(agent)
        return [RegisteredWorker(worker, tuple(served)) for worker, served in sorted(serves.items())]

    async def drain(self, worker: str) -> None:
        """Ask a worker to take no more turns, finish or hand over those it has, and end."""
        await self._redis.notify(f"{self._keys.base(0)}ctl", f"drain {part(worker)}")

    async def _used(self, base: str, agents: list[str]) -> list[str]:
        leases, deadlines, attached, *queues = await asyncio.gather(
            *(
                self._redis.command("ZRANGE", f"{base}{one}", 0, -1)
                for one in ("leases", "deadlines", "used")
            ),
            *(self._redis.command("XRANGE", f"{base}q:{agent}", "-", "+") for agent in agents),
        )
        turns = [split_pair(name.decode())[1] for name in [*(leases or []), *(deadlines or [])]]
        waiting = [item[1][3].decode() for queue in queues for item in queue or []]
        return [*turns, *waiting, *(name.decode() for name in attached or [])]

    async def _of_bucket(self, base: str, agents: list[str]) -> list[tuple[str, str]]:
        leases, *queues = await asyncio.gather(
            self._redis.command("ZRANGE", f"{base}leases", 0, _MOST_OF_A_BUCKET - 1),
            *(
                self._redis.command("XRANGE", f"{base}q:{agent}", "-", "+", "COUNT", _MOST_OF_A_BUCKET)
                for agent in agents
            ),
        )
        running = [split_pair(name.decode()) for name in leases]
        waiting = [(item[1][1].decode(), item[1][3].decode()) for queue in queues for item in queue or []]
        return [(session, turn) for turn, session in [*running, *waiting]]
