"""The `dev` command: one process group that is ready, works, and leaves nothing behind."""

from __future__ import annotations

import re

import httpx
import psutil
import pytest

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import DEV_KEY_NAME, DEV_KEY_SECRET
from tests.processes import Proc, Stack, gone, wait_until


def family(proc: Proc) -> list[psutil.Process]:
    return psutil.Process(proc.pid).children(recursive=True)


async def test_dev_is_ready_and_stops_with_all_its_children(stack: Stack) -> None:
    dev = await stack.dev()
    assert dev.url.startswith("http://127.0.0.1:")
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{dev.url}/readyz")).status_code == 200
    children = family(dev)
    assert len(children) >= 3
    address = re.search(r"^redis (redis://\S+)$", dev.log, re.MULTILINE)
    assert address is not None
    redis = RedisConnection(address[1])
    assert await redis.info()
    await redis.close()
    dev.terminate()
    assert await dev.wait() == 0
    await wait_until(lambda: all(gone(child) for child in children))


async def test_dev_ends_when_the_gateway_ends(stack: Stack) -> None:
    dev = await stack.dev()
    children = family(dev)
    (gateway,) = [child for child in children if "gateway" in child.cmdline()]
    gateway.kill()
    assert await dev.wait() == 1
    assert "the gateway ended with status -9" in dev.log
    await wait_until(lambda: all(gone(child) for child in children))


async def test_dev_replaces_a_worker_that_dies_and_the_turn_goes_on(stack: Stack) -> None:
    dev = await stack.dev()
    session = f"{dev.url}/v1/sessions/crashes"
    async with httpx.AsyncClient(auth=(DEV_KEY_NAME, DEV_KEY_SECRET)) as client:
        sent = await client.post(f"{session}/turns", json={"text": "script: tokens=8 rate=20 crash_at=3"})
        turn = sent.json()["turnId"]

        async def completed() -> bool:
            turns = (await client.get(f"{session}/messages")).json()["turns"]
            return [(one["runId"], one["status"]) for one in turns] == [(turn, "completed")]

        # The lease of the dead worker has to run out first.
        await wait_until(completed, 30.0)
    assert "the worker ended with status -9; starting another one" in dev.log
    children = family(dev)
    dev.terminate()
    assert await dev.wait() == 0
    await wait_until(lambda: all(gone(child) for child in children))


async def test_dev_leaves_nothing_behind_when_it_is_killed(stack: Stack) -> None:
    dev = await stack.dev()
    children = family(dev)
    psutil.Process(dev.pid).kill()
    await wait_until(lambda: all(gone(child) for child in children), 10.0)


async def test_dev_keeps_its_data(stack: Stack) -> None:
    for _ in range(2):
        dev = await stack.dev()
        dev.terminate()
        assert await dev.wait() == 0
    assert (stack.folder / "data").is_dir()


async def test_dev_says_why_it_cannot_start(stack: Stack) -> None:
    with pytest.raises(AssertionError, match="error 50003"):
        await stack.dev("--redis", "redis://127.0.0.1:1/0")
