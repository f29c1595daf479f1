"""The examples of the README and the guides, run as they are printed."""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from selfhost_transport import TurnStatus
from selfhost_transport.turns.ui import ToolPart
from tests.e2e.conftest import Build
from tests.processes import Proc, Stack, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parent.parent.parent


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest_asyncio.fixture(loop_scope="module")
async def dev(redis_url: str, redis_prefix: str, tmp_path: Path) -> AsyncIterator[Proc]:
    running = Stack(redis_url, redis_prefix, tmp_path)
    try:
        yield await running.dev("--redis", redis_url)
    finally:
        await running.close()


async def _run(code: str, names: dict[str, object]) -> None:
    compiled = compile(code, "example", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, names)
    if inspect.isawaitable(result):
        await result


async def test_sdk_3_the_python_example_runs(dev: Proc, capsys: pytest.CaptureFixture[str]) -> None:
    example = next(block for block in blocks("README.md", "python") if "ClientTransport" in block)
    assert "\n\n    " not in example, "the interactive console ends a block at an empty line"
    async with asyncio.timeout(60):
        await _run(example.replace("127.0.0.1:8080", f"127.0.0.1:{dev.port}"), {})
    printed = capsys.readouterr().out
    assert "TurnStatus.CANCELLED" in printed or "cancelled" in printed
    assert "focus on the budget instead" in printed
    assert printed.split("\n")[-2] == "assistant"


async def test_the_guide_of_the_sdk_runs(dev: Proc) -> None:
    names: dict[str, object] = {}
    beginning, turns, stopping = blocks("docs/python-sdk.md", "python")[:3]
    async with asyncio.timeout(60):
        for example in (beginning, turns, stopping):
            await _run(example.replace("127.0.0.1:8080", f"127.0.0.1:{dev.port}"), names)


async def test_the_curl_examples_run(dev: Proc) -> None:
    example = next(block for block in blocks("README.md", "sh") if "curl" in block)
    lines = [line for line in example.replace(":8080", f":{dev.port}").splitlines() if "/events" not in line]
    shell = await asyncio.create_subprocess_exec(
        "bash", "-ec", "\n".join(lines).replace("curl ", "curl --fail-with-body -sS "),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(shell.communicate(), 30)
    assert shell.returncode == 0, err.decode() + out.decode()
    assert b'"turnId"' in out and b'"matched"' in out and b'"messages"' in out


async def test_the_agents_of_the_readme_and_the_guide_answer(build: Build, tmp_path: Path) -> None:
    agents = "\n".join(blocks("docs/agents.md", "python"))
    (tmp_path / "my_agents.py").write_text(agents)
    (tmp_path / "readme_agents.py").write_text(
        next(block for block in blocks("README.md", "python") if "@worker.agent" in block)
    )
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    config = """
[[keys]]
name = "test.key"
secret = "secret-of-the-tests"
[[namespaces]]
id = "chat"
agent = "assistant"
[[namespaces]]
id = "book"
agent = "booker"
"""
    stage = await build(gateways=1, workers=0, config=config, env={"PYTHONPATH": path})
    worker = await stage.add_worker("readme_agents:worker")
    async with stage.connect("chat:1") as transport, asyncio.timeout(30):
        turn = await transport.view.send("Hello")
        await turn.ended
        assert turn.text.strip() == "An answer, word by word."
    worker.terminate()
    await worker.wait()
    await stage.add_worker("my_agents:worker")
    async with stage.connect("chat:2") as transport, asyncio.timeout(30):
        turn = await transport.view.send("one two three")
        await turn.ended
        assert turn.text.strip() == "one two three"
    async with stage.connect("book:1") as transport, asyncio.timeout(30):
        turn = await transport.view.send("A room in Rome")
        await wait_until(lambda: turn.status is TurnStatus.SUSPENDED, 20)
        call = next(
            (item.codec_message_id, part.tool_call_id)
            for item in transport.view.messages
            for part in item.message.parts
            if isinstance(part, ToolPart) and part.tool_name == "book"
        )
        await turn.approve(*call, True)
        await turn.ended
        assert turn.text.strip().endswith("user-1 said yes.")
