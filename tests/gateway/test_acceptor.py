"""A gateway that comes near its limit of descriptors: it stops accepting, says so once, and goes on when it can."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path

from tests.gateway.raw import CONFIG
from tests.processes import Proc, Stack, wait_until

_WAITING = 40


def descriptors(proc: Proc) -> int:
    return len(list(Path(f"/proc/{proc.pid}/fd").iterdir()))


async def answered(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bytes:
    reader, writer = streams
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    return await reader.readline()


async def test_the_limit_of_descriptors_is_not_reached(stack: Stack) -> None:
    gateway = await stack.gateway(config=CONFIG)
    port = int(gateway.url.rpartition(":")[2])
    soft, hard = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
    assert soft == hard, "the soft limit is raised at start"
    lines = len(gateway.lines)
    limit = descriptors(gateway) + 20
    resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (limit, hard))
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(_WAITING)]
    try:
        assert (await answered(opened[0])).startswith(b"HTTP/1.1 200")
        last = asyncio.create_task(answered(opened[-1]))
        await wait_until(lambda: len(gateway.lines) > lines)
        # It looks again several times a second, and must neither accept nor complain.
        done, _ = await asyncio.wait({last}, timeout=1.0)
        assert not done
        assert descriptors(gateway) < limit, "some are left for Redis and files"
        assert len(gateway.lines) == lines + 1 and "descriptors_exhausted" in gateway.lines[-1]
        for _, writer in opened[: _WAITING // 2]:
            writer.close()
        for _, writer in opened[_WAITING // 2 : -1]:
            writer.close()
        assert (await asyncio.wait_for(last, 5)).startswith(b"HTTP/1.1 200")
    finally:
        for _, writer in opened:
            writer.close()
    assert len(gateway.lines) == lines + 1
