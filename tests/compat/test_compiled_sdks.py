"""The SDKs of compiled languages against two gateways, in both formats."""

from __future__ import annotations

import pytest

from tests.compat.site import FORMATS, TOOLS, Site, missing_tool, play_program

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("wire_format", FORMATS)
@pytest.mark.parametrize("language", sorted(TOOLS))
async def test_features_of_the_sdk(site: Site, language: str, wire_format: str) -> None:
    missing = missing_tool(language)
    if missing is not None:
        pytest.skip(f"{missing} is not installed: the {language} SDK cannot be built")
    outcomes = await play_program(site, wire_format, language)
    failed = [f"{outcome.feature}\n{outcome.error}" for outcome in outcomes if not outcome.ok]
    assert outcomes and not failed, "\n\n".join(failed)
