"""How many are attached to a session, on all gateways together (protocol section 14.4).

Each process publishes its counts of a session under its presence lease: a process that
died is not counted once its lease has expired, and no counter can drift.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import astuple, dataclass
from itertools import islice
from typing import Final

import orjson

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.presence import PresenceStore

REMEMBERED_MS: Final = 90_000
"""Counts that are not refreshed within this time expire."""


@dataclass(frozen=True, slots=True)
class AttachmentCounts:
    """What one process contributes: attachments by what their modes let them do."""

    connections: int = 0
    publishers: int = 0
    subscribers: int = 0
    presence_connections: int = 0
    presence_subscribers: int = 0

    def __add__(self, other: AttachmentCounts) -> AttachmentCounts:
        return AttachmentCounts(
            *(one + another for one, another in zip(astuple(self), astuple(other), strict=True))
        )


@dataclass(frozen=True, slots=True)
class Occupancy:
    """The sum of all counts, and the session's presence members."""

    counts: AttachmentCounts = AttachmentCounts()
    presence_members: int = 0

    def metrics(self) -> dict[str, int]:
        """As the wire has them."""
        counts = self.counts
        return {
            "connections": counts.connections,
            "publishers": counts.publishers,
            "subscribers": counts.subscribers,
            "presenceConnections": counts.presence_connections,
            "presenceMembers": self.presence_members,
            "presenceSubscribers": counts.presence_subscribers,
            "objectPublishers": 0,
            "objectSubscribers": 0,
        }


class OccupancyStore:
    """Shares of all processes of a deployment. Raises StoreUnavailable."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, presence: PresenceStore | None = None) -> None:
        self._redis = redis
        self._keys = keys
        # Keeps the leases by which shares count, where a process does not have one in every bucket.
        self._presence = presence

    def channel(self, session: str) -> str:
        """Where it is announced that the counts of a session have changed."""
        return f"{self._keys.base_of(session)}j:{session}"

    async def report(
        self, session: str, node: str, counts: AttachmentCounts, readers: Collection[str] | None = None
    ) -> None:
        """Replace what a process contributes; to be repeated well within REMEMBERED_MS.

        `readers`: the client ids attached through it; None: they are not named.
        """
        base = self._keys.base_of(session)
        if self._presence is not None:
            await self._presence.use(session, node)
        packed = "" if counts == AttachmentCounts() else " ".join(str(count) for count in astuple(counts))
        await self._redis.call(
            *scripts.call(
                "occupancy_report", occupancy=self.channel(session), base=base, session=session, node=node,
                contribution=packed, remember_ms=REMEMBERED_MS,
                readers="" if readers is None else orjson.dumps(sorted(readers)),
            )
        )  # fmt: skip

    async def read(self, session: str) -> Occupancy:
        """The occupancy now."""
        base = self._keys.base_of(session)
        reply = await self._redis.call(
            *scripts.call("occupancy_read", occupancy=self.channel(session), base=base, session=session)
        )
        counts = [AttachmentCounts(*(int(count) for count in packed.split())) for packed in reply[1:]]
        return Occupancy(sum(counts, AttachmentCounts()), int(reply[0]))

    async def has(self, session: str, client_id: str) -> bool:
        """Whether a client is attached to a session through a process that names its readers."""
        base = self._keys.base_of(session)
        call = scripts.call("occupancy_has", occupancy=self.channel(session), base=base, client=client_id)
        return bool(await self._redis.call(*call))

    async def sessions(self, *, prefix: str = "", after: str | None = None, limit: int = 100) -> list[str]:
        """Names of sessions with attachments, in order; `after`: exclusive."""
        calls = [
            self._redis.command("ZRANGEBYSCORE", f"{base}used", "-inf", "+inf") for base in self._keys.bases()
        ]
        buckets = await asyncio.gather(*calls)
        names = sorted(name.decode() for bucket in buckets for name in bucket or [])
        found = (name for name in names if name.startswith(prefix) and (after is None or name > after))
        return list(islice(found, limit))
