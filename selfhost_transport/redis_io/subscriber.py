"""Notifications: any number of channels, callbacks in order, over connections of their own.

Pub/sub does not buffer: after every reconnect the owner is notified, so that it can compare positions and fill from the
log (P7).
"""

from __future__ import annotations

from selfhost_transport.redis_io.address_resolver import address_resolver
from selfhost_transport.redis_io.cluster import ClusterNodes
from selfhost_transport.redis_io.shard_subscriptions import ShardSubscriptions
from selfhost_transport.redis_io.subscriptions import (
    OnMessage,
    OnMissed,
    OnReconnect,
    ReadScope,
    Subscriptions,
)


class Subscriber:
    """Subscriptions of one process. Callbacks run in the reading callback: they must be quick and never raise.

    `on_reconnect` is called once all subscriptions are confirmed again after a lost connection. Redis drops a
    subscriber that reads too slowly; that is such a loss. `batch` is entered around callbacks for what arrived
    together.
    """

    def __init__(
        self,
        url: str,
        *,
        on_reconnect: OnReconnect | None = None,
        timeout_s: float = 5.0,
        batch: ReadScope | None = None,
    ) -> None:
        where = address_resolver(url)
        timeout_s = where.timeout_s or timeout_s
        self._way: Subscriptions | ShardSubscriptions
        if isinstance(where, ClusterNodes) and where.sharded:
            self._way = ShardSubscriptions(where, on_reconnect, timeout_s, batch)
        else:
            self._way = Subscriptions(where, on_reconnect, timeout_s, batch)

    @property
    def connected(self) -> bool:
        """Whether notifications arrive, on all channels."""
        return self._way.connected

    async def subscribe(self, channel: str, callback: OnMessage, missed: OnMissed | None = None) -> None:
        """Returns once Redis has confirmed: whatever is published from then on arrives.

        `missed`: called instead of `on_reconnect` where this channel alone, or a few with it, was away for a while: its
        slot moved to another server of a Cluster, or that server was lost.
        Raises StoreUnsuitable where Redis refuses it for good, as for want of rights; possibly for another channel that was
        asked for at the same time.
        """
        await self._way.subscribe(channel, callback, missed)

    async def unsubscribe(self, channel: str) -> None:
        """Stop a channel's callbacks."""
        await self._way.unsubscribe(channel)

    async def close(self) -> None:
        """End all subscriptions and disconnect."""
        await self._way.close()
