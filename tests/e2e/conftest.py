"""One deployment per module, for rows in which nothing is killed."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.stage import Stage
from tests.leaks import keys_under


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """Two gateways and a worker of the scripted model, shared by the module's tests."""
    prefix = f"e{uuid.uuid4().hex[:10]}"
    running = await Stage.make(redis_server.url, prefix, tmp_path_factory.mktemp("stage"))
    yield running
    await running.close()
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        keys = keys_under(client, prefix)
        for start in range(0, len(keys), 1000):
            client.unlink(*keys[start : start + 1000])


@pytest.fixture
async def own_redis() -> AsyncIterator[EmbeddedRedis]:
    """A Redis that the test may stop and start; it keeps its data."""
    with EmbeddedRedis() as server:
        yield server
