"""Deployments of real processes: one per module for rows in which nothing is killed, and made to measure."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import pytest_asyncio
import redis

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.stage import FULL, Stage
from tests.leaks import keys_under, unowned_keys
from tests.machine import free_port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The full counts of the acceptance table take longer than a test usually may."""
    for item in items:
        if FULL and "/e2e/test_rows_" in item.path.as_posix():
            item.add_marker(pytest.mark.timeout(3600))


class Build(Protocol):
    """Makes a deployment that ends with the test; arguments are those of `Stage.make`."""

    async def __call__(self, redis_url: str | None = None, **arguments: Any) -> Stage: ...


@contextmanager
def _prefix(url: str) -> Iterator[str]:
    """A prefix of one's own; afterwards its keys are looked at (P9) and removed."""
    prefix = f"e{uuid.uuid4().hex[:10]}"
    try:
        yield prefix
    finally:
        with redis.Redis.from_url(url, decode_responses=True) as client:
            leaked = unowned_keys(client, prefix)
            keys = keys_under(client, prefix)
            for start in range(0, len(keys), 1000):
                client.unlink(*keys[start : start + 1000])
    assert not leaked, f"keys with neither a TTL nor a declared owner: {leaked}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """Two gateways and a worker of the scripted model, shared by the module's tests."""
    with _prefix(redis_server.url) as prefix:
        running = await Stage.make(redis_server.url, prefix, tmp_path_factory.mktemp("stage"))
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="module")
async def build(redis_server: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[Build]:
    """Deployments for tests that kill."""
    running: list[Stage] = []
    with _prefix(redis_server.url) as prefix:

        async def make(redis_url: str | None = None, **arguments: Any) -> Stage:
            folder = tmp_path / f"stage-{len(running)}"
            folder.mkdir()
            made = await Stage.make(redis_url or redis_server.url, prefix, folder, **arguments)
            running.append(made)
            return made

        yield make
        async with AsyncExitStack() as ends:
            for stage in running:
                ends.push_async_callback(stage.close)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that the test may stop and start again: it keeps its data and its address."""
    with EmbeddedRedis(tmp_path / "redis", free_port()) as server:
        yield server
