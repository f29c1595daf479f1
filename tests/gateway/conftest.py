"""A gateway as a real process, started once per module: tests use channels of their own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
import pytest_asyncio

from gateway.fanout.hub import SessionHub
from gateway.metrics import Metrics
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.session_store import SessionStore
from tests.gateway.raw import CONFIG, KEY
from tests.gateway.scene import Scene
from tests.processes import Stack

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Processes on the shared Redis under a prefix of their own."""
    async with Stack.opened(redis_server.url, tmp_path_factory.mktemp("site")) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(site: Stack) -> str:
    """Address of a gateway."""
    return (await site.gateway(config=CONFIG)).url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def second_url(site: Stack, url: str) -> str:
    """Address of another gateway of the same deployment."""
    return (await site.gateway(config=CONFIG)).url


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Channel names no one used before."""
    return lambda namespace: f"{namespace}:{next(_numbers)}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Requests to that gateway, with a key that may do everything."""
    name, _, secret = KEY.partition(":")
    async with httpx.AsyncClient(base_url=url, auth=(name, secret)) as opened:
        yield opened


@pytest.fixture
async def store(redis_url: str, redis_prefix: str) -> AsyncIterator[SessionStore]:
    """Sessions under the test's prefix, for gateways' parts in this process."""
    redis = RedisConnection(redis_url)
    yield SessionStore(redis, Keyspace(redis_prefix), StoreOptions())
    await redis.close()


@pytest.fixture
async def scene(store: SessionStore, redis_url: str) -> AsyncIterator[Scene]:
    """A hub on them."""
    hub = SessionHub(store, redis_url, Metrics())
    yield Scene(store, hub)
    await hub.close()
