"""A store on the shared real Redis, under a prefix of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_store import TurnStore


@pytest.fixture
async def connection(redis_url: str, redis_prefix: str) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(redis_url)
    yield connection
    await connection.close()


@pytest.fixture
def keys(redis_prefix: str) -> Keyspace:
    return Keyspace(redis_prefix, buckets=4)


@pytest.fixture
def sessions(connection: RedisConnection, keys: Keyspace) -> SessionStore:
    return SessionStore(connection, keys)


@pytest.fixture
def turns(connection: RedisConnection, keys: Keyspace) -> TurnStore:
    return TurnStore(connection, keys)
