"""One deployment per module: the cases use channels of their own and do not meet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.compat.site import Site, open_site
from tests.e2e.conftest import build, stage

__all__ = ["build", "site", "stage"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Two gateways and a worker."""
    async with open_site(redis_server.url, tmp_path_factory.mktemp("compat")) as running:
        yield running
