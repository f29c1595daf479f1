"""The `dev` command: one process group that is ready, works, and leaves nothing behind."""

from __future__ import annotations

import httpx
import psutil
import pytest

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
    dev.terminate()
    assert await dev.wait() == 0
    await wait_until(lambda: all(gone(child) for child in children))


async def test_dev_ends_when_a_part_ends(stack: Stack) -> None:
    dev = await stack.dev()
    children = family(dev)
    (worker,) = [child for child in children if "worker" in child.cmdline()]
    worker.kill()
    assert await dev.wait() == 1
    assert "the worker ended with status -9" in dev.log
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
