"""The npm package `selfhost-transport` (clients/javascript): its suites against a gateway and a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.js_package import PACKAGE, Site, build, open_site
from tests.e2e.node import run_suite

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    build()
    async with open_site(redis_server.url, tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest.mark.parametrize(
    "suite", ["package", "turns", "edges", "react", "vercel", "local", "types", "browser", "readme"]
)
async def test_the_client_of_the_first_generation(site: Site, suite: str) -> None:
    await run_suite(site.stack, f"{suite}.test.mjs", site.environment, folder=PACKAGE / "test")
