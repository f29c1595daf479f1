"""Revoked tokens: one hash for the deployment, announced to every gateway (protocol section 10.7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import orjson

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts

KEPT_MS = 3_600_000 + 120_000 + 60_000
"""Longest life of a revocable token, how far ahead its `iat` may lie, and time for the re-authentication margin."""


class TargetKind(StrEnum):
    """What tokens are chosen by."""

    CLIENT_ID = "clientId"
    REVOCATION_KEY = "revocationKey"
    CHANNEL = "channel"


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens of a key that were issued before a time, and match a target. Times in ms since the epoch.

    `applies_at`: from when they are refused; later than now where clients get time to renew.
    """

    key_name: str
    kind: TargetKind
    value: str
    issued_before: int
    applies_at: int

    @property
    def useful_until(self) -> int:
        """When no token can match it any more, ms since the epoch."""
        return max(self.issued_before, self.applies_at) + KEPT_MS

    def pack(self) -> bytes:
        """The field of the hash."""
        return orjson.dumps([self.key_name, self.kind, self.value, self.issued_before, self.applies_at])

    @classmethod
    def unpack(cls, packed: bytes) -> Revocation:
        """Read a field."""
        key_name, kind, value, issued_before, applies_at = orjson.loads(packed)
        return cls(key_name, TargetKind(kind), value, issued_before, applies_at)


class RevocationStore:
    """Reads and adds revocations."""

    def __init__(self, redis: RedisConnection, prefix: str) -> None:
        self._redis = redis
        self._key = f"{prefix}:revoked"
        self.channel = f"{prefix}:revoked"

    async def add(self, revocations: Sequence[Revocation]) -> None:
        """Store revocations and tell every gateway. Raises StoreUnavailable."""
        fields = [revocation.pack() for revocation in revocations]
        call = scripts.call("revoke", fields, revocations=self._key, channel=self.channel, ttl_ms=KEPT_MS)
        await self._redis.call(*call)

    async def all(self) -> list[Revocation]:
        """Every revocation that holds. Raises StoreUnavailable."""
        reply: list[bytes] = await self._redis.command("HKEYS", self._key)
        return [Revocation.unpack(field) for field in reply]
