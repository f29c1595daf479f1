"""The guide for who leaves the cloud: applications of before, in a folder of their own, with the page's lines."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from tests.documentation.blocks import ROOT, block
from tests.documentation.conftest import KEY, Site
from tests.processes import Proc

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = "docs/migrating.md"
APPLICATIONS = Path(__file__).parent / "leaving"
REDIS = "redis://127.0.0.1:6379"


@dataclass(slots=True)
class Move:
    """The folder, and what runs for it."""

    site: Site
    folder: Path
    gateway: Proc

    async def sh(self, text: str, **environment: str) -> Proc:
        command = f"cd {self.folder}\n{text}".replace(REDIS, self.site.stack.redis_url)
        return await self.site.sh(
            command, SELFHOST_TRANSPORT_REDIS_PREFIX=prefix(self.site), ABLY_API_KEY=KEY, **environment
        )

    async def chat(self, channel: str, api: str) -> str:
        proc = await self.sh(f"exec node chat.mjs {channel} Hello {api}")
        assert await proc.wait(30) == 0, proc.log
        return proc.lines[-1]


def prefix(site: Site) -> str:
    return f"{site.stack.redis_prefix}m"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def move(site: Site) -> AsyncIterator[Move]:
    folder = site.folder / "moved"
    folder.mkdir()
    (folder / "node_modules").symlink_to(ROOT / "tests" / "js" / "node_modules")
    (folder / "config.toml").write_text(block(PAGE, "# config.toml").text)
    for file in APPLICATIONS.glob("*.mjs"):
        (folder / file.name).write_text(file.read_text())
    gateway, worker = block(PAGE, "selfhost-transport gateway").text.splitlines()
    made = Move(site, folder, await site.sh("exec true"))
    made.gateway = await made.sh(f"exec {gateway}".replace("--port 8080", "--port 0"))
    await made.gateway.ready
    await (await made.sh(f"exec {worker}")).ready
    options = block(PAGE, "// options.mjs").text.replace("port: 8080", f"port: {made.gateway.port}")
    (folder / "options.mjs").write_text(options)
    yield made


async def test_an_agent_of_its_own_answers_where_none_is_bound_and_is_refused_elsewhere(
    move: Move,
) -> None:
    agent = await move.sh("exec node agent.mjs")
    await agent.ready
    assert await move.chat("own:1", agent.url) == "my own answer"
    await move.chat("support:1", agent.url)
    assert "namespace without `agent`" in agent.log


async def test_use_chat_is_answered_by_workers_once_its_wake_up_goes_to_the_gateway(move: Move) -> None:
    line = block(PAGE, "createChatTransport").text
    assert "{ api: 'http://localhost:8080/api/chat' }" in line
    assert "You wrote: “Hello”" in await move.chat("support:2", f"{move.gateway.url}/api/chat")
    assert "returned 400" in await move.chat("own:2", f"{move.gateway.url}/api/chat")


async def test_conversations_are_taken_over_by_the_commands_of_the_page(move: Move) -> None:
    old = await move.site.stack.gateway(config=block(PAGE, "# config.toml").text)
    headers = {"authorization": f"Basic {b64encode(KEY.encode()).decode()}"}
    channels = ["own:support-42", "own:support-43"]
    async with httpx.AsyncClient(headers=headers) as client:
        for channel in channels:
            url = f"{old.url}/channels/{channel}/messages"
            assert (await client.post(url, json={"name": "note", "data": channel})).is_success
        (move.folder / "channels.txt").write_text("\n".join(channels))
        _, *commands = block(PAGE, "selfhost-transport import").text.splitlines()
        for command in commands:
            proc = await move.sh(f"exec {command} --from {old.url}")
            assert await proc.wait(30) == 0, proc.log
        assert "2 of 2 channels imported" in proc.log
        for channel in channels:
            found = (await client.get(f"{move.gateway.url}/channels/{channel}/messages")).json()
            assert [message["data"] for message in found] == [channel], json.dumps(found)
