"""The applications of examples/: each is started by its one command, a question gets its answer, a stop ends it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.node import FOLDER, run_suite
from tests.machine import browser, free_port
from tests.processes import Proc, Stack, wait_until

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
AUTH = ("dev.local", "development-secret")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    async with Stack.opened(redis_server.url, tmp_path_factory.mktemp("examples")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dev(stack: Stack) -> Proc:
    return await stack.dev()


def copied(stack: Stack, name: str) -> Path:
    """An example in a folder of its own, with the packages that it names: those of tests/js, in the same versions."""
    folder = stack.folder / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    return folder


async def shell(stack: Stack, folder: Path, command: str, **env: str) -> Proc:
    return await stack.run("bash", "-euc", f"cd {folder}\nexec {command}", env=env)


async def turns_of(gateway: str, session: str) -> list[dict[str, object]]:
    async with httpx.AsyncClient(auth=AUTH) as client:
        response = await client.get(f"{gateway}/v1/sessions/{session}/turns")
    found: list[dict[str, object]] = response.raise_for_status().json()["turns"]
    return found


@pytest.mark.parametrize(
    "package", sorted(EXAMPLES.glob("*/package.json")), ids=lambda path: path.parent.name
)
async def test_the_packages_are_those_that_the_tests_use(package: Path) -> None:
    used = json.loads((FOLDER / "package.json").read_text())["devDependencies"]
    for name, version in json.loads(package.read_text())["dependencies"].items():
        assert used[name] == version, name


@pytest.mark.parametrize("name", ["use-chat", "tanstack-ai"])
async def test_the_pages_in_a_browser(stack: Stack, dev: Proc, name: str) -> None:
    port = free_port()
    options = f"--host 127.0.0.1 --port {port} --strictPort"
    page = await shell(stack, copied(stack, name), f"npm start -- {options}", GATEWAY=dev.url, NO_COLOR="1")
    await wait_until(lambda: f"127.0.0.1:{port}" in page.log, 30, "the page is served")
    env = {"URL": f"http://127.0.0.1:{port}/", "API": dev.url, "CHROMIUM": browser()}
    await run_suite(stack, "examples.test.mjs", env)


async def test_ag_ui_in_the_terminal(stack: Stack, dev: Proc) -> None:
    thread = f"thread-{uuid.uuid4().hex[:8]}"
    folder = copied(stack, "ag-ui")
    typed = folder / "typed"
    os.mkfifo(typed)
    # Opened for reading and writing: it is there before someone types, and stays.
    program = await shell(stack, folder, f"npm --silent start -- {thread} <>typed", GATEWAY=dev.url)
    await wait_until(lambda: f"thread {thread}" in program.log, 30, "the thread is read")
    keyboard = await asyncio.to_thread(typed.open, "w")
    with keyboard:
        print("script: tokens=5 rate=100", file=keyboard, flush=True)
        await wait_until(lambda: "0 1 2 3 4" in program.lines, 40, program.log)
        print("script: tokens=2000 rate=40", file=keyboard, flush=True)
        (turn,) = await wait_until(lambda: turns_of(dev.url, thread), 40)
        print("", file=keyboard, flush=True)
        await wait_until(lambda: "[stopped for good]" in program.log, 40)
    assert turn["turnId"] and await turns_of(dev.url, thread) == []
    program.kill()
    again = await shell(stack, folder, f"npm --silent start -- {thread} </dev/null", GATEWAY=dev.url)
    assert await again.wait(20) == 0
    assert "user: script: tokens=5 rate=100" in again.lines and "assistant: 0 1 2 3 4" in again.lines


async def test_a_script_with_openais_client(stack: Stack, dev: Proc) -> None:
    chat, python = f"chat-{uuid.uuid4().hex[:8]}", sys.executable
    folder = EXAMPLES / "responses"
    asked = await shell(
        stack, folder, f"{python} main.py 'script: tokens=5 rate=100' {chat}", GATEWAY=dev.url
    )
    assert await asked.wait(60) == 0 and asked.log.strip() == "0 1 2 3 4"
    printed = stack.folder / "printed"
    command = f"{python} main.py 'script: tokens=2000 rate=40' {chat} >{printed} 2>&1"
    slow = await shell(stack, folder, command, GATEWAY=dev.url)
    await wait_until(lambda: printed.exists() and "0 1 2" in printed.read_text(), 40)
    os.kill(slow.pid, signal.SIGINT)
    assert await slow.wait(60) == 0
    assert printed.read_text().splitlines()[-1] == "[cancelled]"
    assert await turns_of(dev.url, chat) == []


async def test_inside_a_fastapi_application(stack: Stack) -> None:
    environment = {"REDIS_URL": stack.redis_url, "REDIS_PREFIX": f"{stack.redis_prefix}f"}
    port = free_port()
    uvicorn = Path(sys.executable).with_name("uvicorn")
    host = await shell(stack, EXAMPLES / "fastapi", f"{uvicorn} host:app --port {port}", **environment)
    await wait_until(lambda: "Uvicorn running" in host.log, 30, host.log)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url, headers={"authorization": "Bearer session-of-ann"}) as ann:
        assert (await ann.get("/hello")).json() == "hello"
        path = "/realtime/v1/ui/notes:ann"
        answer = await ann.post(path, json=question("one two three"), timeout=20)
        assert '"three "' in answer.text
        assert (await ann.post("/realtime/v1/ui/notes:bob", json=question("x"))).status_code == 401
        async with ann.stream("POST", path, json=question("word " * 500), timeout=20) as stream:
            lines = stream.aiter_lines()
            await anext(line async for line in lines if "text-delta" in line)
            assert (await ann.post(f"{path}/stop")).is_success
            rest = [line async for line in lines if "text-delta" in line]
        assert len(rest) < 100
    host.terminate()


def question(text: str) -> dict[str, object]:
    return {"message": {"id": uuid.uuid4().hex, "role": "user", "parts": [{"type": "text", "text": text}]}}
