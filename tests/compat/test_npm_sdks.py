"""Suites of the npm SDKs that are about compatibility alone, against two gateways, in both formats (SDK-1)."""

from __future__ import annotations

import pytest

from tests.compat.site import FORMATS, Site, play_npm

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize(
    "suite",
    [
        "compat",
        "compat-areas",
        "compat-methods",
        "compat-order",
        "comet",
        "durable",
        "compat-transcripts",
        "compat-react",
    ],
)
async def test_sdk_1_features_of_the_npm_sdks(site: Site, suite: str, wire_format: str) -> None:
    outcomes = await play_npm(site, wire_format, suite)
    failed = [f"{outcome.feature}\n{outcome.error}" for outcome in outcomes if not outcome.ok]
    assert not failed, "\n\n".join(failed)


async def test_the_npm_sdk_in_a_browser_without_websockets(site: Site) -> None:
    # Over HTTP requests all is JSON.
    outcomes = await play_npm(site, "json", "comet-browser")
    failed = [f"{outcome.feature}\n{outcome.error}" for outcome in outcomes if not outcome.ok]
    assert not failed, "\n\n".join(failed)
