"""A short connection to the store, for commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import Settings
from selfhost_transport.store.format import check_format
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.turn_store import TurnStore


@asynccontextmanager
async def turn_store(settings: Settings) -> AsyncIterator[TurnStore]:
    """The turns of the deployment the settings describe. Raises StoreUnavailable, StoreUnsuitable."""
    redis = RedisConnection(settings.redis.url)
    try:
        await check_format(redis, settings.redis.prefix, note=False)
        keys = Keyspace(settings.redis.prefix, settings.redis.buckets)
        yield TurnStore(redis, keys, StoreOptions(window_ms=settings.gateway.resume_window_s * 1000))
    finally:
        await redis.close()
