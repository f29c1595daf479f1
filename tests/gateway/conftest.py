"""A gateway as a real process, started once per module: tests use channels of their own."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.gateway.raw import CONFIG
from tests.processes import Stack

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """Processes on the shared Redis under a prefix of their own."""
    stack = Stack(redis_server.url, f"t{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("site"))
    yield stack
    await stack.close()


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
