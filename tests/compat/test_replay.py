"""Every recorded session of the SDKs is played against a real gateway and answered as the SDK needs (SDK-1)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.wire.codec import Format
from tests.compat.replay import KEY_NAME, Replay
from tests.processes import Stack
from tests.wire.recordings import SECRET, scenarios

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # The key of the recordings is a short one.
    pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning"),
]

CONFIG = f"""
[[keys]]
name = "{KEY_NAME}"
secret = "{SECRET}"
capability = {{ "replay-json:*" = ["*"], "replay-msgpack:*" = ["*"], "*" = ["stats"] }}
revocable_tokens = true
"""
RUNS = [
    pytest.param(name, run, Format(fmt), id=f"{name}-{fmt}")
    for name, scenario in scenarios()
    for fmt, run in scenario["runs"].items()
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    stack = Stack(redis_server.url, "replay", tmp_path_factory.mktemp("replay"))
    try:
        yield (await stack.gateway(config=CONFIG)).url
    finally:
        await stack.close()


@pytest.mark.parametrize(("name", "run", "fmt"), RUNS)
async def test_sdk_1_recorded_clients_are_answered(
    url: str, name: str, run: dict[str, Any], fmt: Format
) -> None:
    replay = Replay(url, run, fmt, f"replay-{fmt}:{name}")
    await replay.play()
    sent = [event for event in run["events"] if event["dir"] in ("ws-open", "c2s", "http-req")]
    assert replay.answered == len(sent)
