"""In which buckets a connection has presence members, where asking every bucket would cost too much.

Written before a connection's first members in a bucket, so it never names too few; too many do no harm.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.names import part

FEW_BUCKETS: Final = 64
"""Up to this many are all asked, which costs less than remembering which of them matter."""
_KEPT_MS: Final = 24 * 3_600_000
_REFRESH_S: Final = 3_600.0
_MOST_KNOWN: Final = 65_536


class HeldBuckets:
    """Key `<prefix>:held:<connection>`, a HASH of buckets. Raises StoreUnavailable."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys
        self._known: OrderedDict[str, set[int]] = OrderedDict()
        self._refresh_at = time.monotonic() + _REFRESH_S

    async def note(self, connection: str, session: str) -> None:
        """The connection is about to have members in the session."""
        bucket = bucket_of(session, self._keys.buckets)
        if not connection or self._keys.buckets <= FEW_BUCKETS or bucket in self._known.get(connection, ()):
            return
        await self._redis.command("HSET", self._key(connection), bucket, 1)
        await self._redis.command("PEXPIRE", self._key(connection), _KEPT_MS)
        self._remember(connection, {bucket, *self._known.get(connection, ())})

    async def bases_of(self, connection: str) -> list[str]:
        """The buckets in which the connection may have members."""
        if self._keys.buckets <= FEW_BUCKETS:
            return self._keys.bases()
        found = {int(bucket) for bucket in await self._redis.command("HKEYS", self._key(connection))}
        self._remember(connection, found)
        return [self._keys.base(bucket) for bucket in sorted(found)]

    def forget(self, connection: str) -> None:
        """This process does not answer for the connection any more."""
        self._known.pop(connection, None)

    async def keep(self) -> None:
        """Called often: what this process answers for lives on."""
        if time.monotonic() < self._refresh_at:
            return
        self._refresh_at = time.monotonic() + _REFRESH_S
        for connection in list(self._known):
            await self._redis.command("PEXPIRE", self._key(connection), _KEPT_MS)

    def _remember(self, connection: str, buckets: set[int]) -> None:
        self._known[connection] = buckets
        self._known.move_to_end(connection)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def _key(self, connection: str) -> str:
        return f"{self._keys.prefix}:held:{part(connection)}"
