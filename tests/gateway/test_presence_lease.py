"""The keeper of a process' presence lease, with Redis being away at the wrong moment."""

from __future__ import annotations

import asyncio

import pytest

from gateway.fanout.presence_lease import PresenceLease
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.presence import Holder, PresenceStore
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.presence import PresenceMessage
from tests.processes import wait_until

HOLDER = Holder("conn", "socket", "gw", remain_ms=0)


class Socket:
    """Counts how often it was asked to claim its members again; fails the first time."""

    def __init__(self, store: PresenceStore) -> None:
        self.store = store
        self.claims: list[bool] = []

    async def reclaim_presence(self) -> None:
        if not self.claims:
            self.claims.append(False)
            await RedisConnection("redis://127.0.0.1:1/0", timeout_s=0.01).command("PING")
        self.claims.append(await self.store.claim(HOLDER))


async def test_a_lost_lease_is_reported_until_every_socket_has_claimed(
    redis_url: str, redis_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    redis = RedisConnection(redis_url)
    keys = Keyspace(redis_prefix, buckets=2)
    store = PresenceStore(redis, keys)
    keeper, socket = PresenceLease(store, "gw", lease_s=0.3), Socket(store)
    running = asyncio.create_task(keeper.run(lambda: [socket]))
    try:
        await wait_until(lambda: redis.command("ZSCORE", f"{keys.base(0)}nodes", "gw"))
        await store.change("room", HOLDER, [PresenceMessage(PresenceAction.ENTER, client_id="ann")])
        # As after a sweep by another process, or a failover that lost the lease.
        for base in keys.bases():
            await redis.command("ZREM", f"{base}nodes", "gw")
        await wait_until(lambda: len(socket.claims) == 2)
        assert socket.claims == [False, True]
        assert "presence.keeping_failed" in caplog.text
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await redis.close()


async def test_a_loss_while_redis_is_away_is_noted_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedRedis() as server:
        redis = RedisConnection(server.url, timeout_s=0.2)
        store = PresenceStore(redis, Keyspace("t", buckets=2))
        keeper = PresenceLease(store, "gw", lease_s=60)
        await store.change("room", HOLDER, [PresenceMessage(PresenceAction.ENTER, client_id="ann")])
        await redis.command("CLIENT", "PAUSE", 1500)
        await keeper.lost(HOLDER)
        assert "presence.loss_not_noted" in caplog.text
        running = asyncio.create_task(keeper.run(list))
        try:

            async def empty() -> bool:
                return await PresenceStore(probe, Keyspace("t", buckets=2)).count("room") == 0

            probe = RedisConnection(server.url, timeout_s=5)
            await wait_until(empty, 10.0)
            await probe.close()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await redis.close()


async def test_one_loss_that_cannot_be_noted_does_not_keep_the_others(
    redis_url: str, redis_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    redis = RedisConnection(redis_url)
    keys = Keyspace(redis_prefix, buckets=1)
    store = PresenceStore(redis, keys)
    keeper = PresenceLease(store, "gw", lease_s=60)
    holders = [Holder(name, "socket", "gw", remain_ms=0) for name in ("damaged", "conn")]
    for holder in holders:
        await store.change(
            "room", holder, [PresenceMessage(PresenceAction.ENTER, client_id=holder.connection_id)]
        )
    await redis.command("SET", f"{keys.base(0)}o:damaged", "foreign")
    for holder in holders:
        await keeper.lost(holder)
    assert "presence.loss_not_noted" in caplog.text
    running = asyncio.create_task(keeper.run(list))

    async def gone() -> bool:
        return [member.client_id for member in await store.members("room")] == ["damaged"]

    try:
        await wait_until(gone)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await redis.close()
