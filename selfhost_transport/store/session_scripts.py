"""Runs the scripts that are about one session, and those that only the holder of a turn may run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.link import Argument
from selfhost_transport.store import scripts
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.turn_records import Lease
from selfhost_transport.store.turn_refusals import lease_lost


class SessionScripts:
    """The scripts of one deployment's sessions. Raises StoreUnavailable, StoreFull."""

    def __init__(self, redis: RedisConnection, keys: Keyspace) -> None:
        self._redis = redis
        self._keys = keys

    async def run(
        self,
        name: str,
        session: str,
        rest: Sequence[Argument] = (),
        /,
        *,
        retry_s: float = 0.0,
        **named: Argument,
    ) -> Any:
        """Run a script on a session, with the values that it names besides the session; its reply."""
        call = scripts.session_call(name, self._keys, session, rest, **named)
        return await self._redis.call(*call, retry_s=retry_s)

    async def run_held(
        self,
        name: str,
        lease: Lease,
        rest: Sequence[Argument] = (),
        /,
        *,
        retry_s: float = 0.0,
        **named: Argument,
    ) -> Any:
        """The same on a turn, by its holder. Raises LeaseLost when another holds the turn, or it has ended."""
        reply = await self.run(
            name, lease.session, rest, retry_s=retry_s, turn=lease.turn_id, fence=lease.fence, **named
        )
        if reply[0] == b"lost":
            raise lease_lost(lease, reply[1])
        return reply
