"""The npm package `selfhost-transport`: its suites with the lowest versions of its peers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.js_package import LONG, LOWEST, Site, build, open_site
from tests.e2e.node import run_suite

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    build()
    async with open_site(redis_server.url, tmp_path_factory.mktemp("site")) as opened:
        yield opened


@pytest.mark.parametrize(
    "suite", ["react", "vercel", *(["types", "turns", "edges", "local"] if LONG else [])]
)
async def test_it_runs_with_the_lowest_versions_of_its_peers(site: Site, suite: str) -> None:
    versions = {"REACT": "18.0.0", "ABLY": "2.23.0"}
    environment = {**site.environment, **versions}
    await run_suite(site.stack, f"{suite}.test.mjs", environment, folder=LOWEST / ".build")
