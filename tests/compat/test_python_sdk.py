"""The unmodified PyPI SDK (`ably`) against two gateways, in both formats: every case passes (SDK-1)."""

from __future__ import annotations

import pytest

from tests.compat.site import FORMATS, Site, play_python

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("wire_format", FORMATS)
async def test_sdk_1_unmodified_pypi_sdk(site: Site, wire_format: str) -> None:
    outcomes = await play_python(site, wire_format)
    failed = [f"{outcome.feature}\n{outcome.error}" for outcome in outcomes if not outcome.ok]
    assert not failed, "\n\n".join(failed)
    assert len(outcomes) > 40
    assert len({outcome.feature for outcome in outcomes}) == len(outcomes)
