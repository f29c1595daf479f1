"""A turn that ends its worker's process is the only one that is blamed for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from selfhost_transport.settings import ENV_PREFIX
from tests.processes import Stack, wait_until
from tests.worker.session import Room, numbered

LEASE = {f"{ENV_PREFIX}LEASE_MS": "800"}


@asynccontextmanager
async def replaced_at_once(stack: Stack) -> AsyncIterator[list[int]]:
    """One worker at a time; a killed one is replaced. Gives how many there were."""
    count = [0]

    async def supervise() -> None:
        while True:
            worker = await stack.worker(env=LEASE)
            count[0] += 1
            await worker.wait()

    supervising = asyncio.create_task(supervise())
    try:
        await wait_until(lambda: count[0], 20)
        yield count
    finally:
        supervising.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await supervising


async def test_the_innocent_complete_beside_a_turn_that_kills_its_worker(room: Room, stack: Stack) -> None:
    async with replaced_at_once(stack) as workers:
        innocent = [await room.send("script: tokens=20 rate=20") for _ in range(2)]
        killer = await room.send("script: tokens=20 rate=20 crash_at=5 always=1")
        for turn in innocent:
            assert (await room.ended(turn, 60)).status == "completed"
            assert await room.text(turn) == numbered(20)
        assert (await room.ended(killer, 60)).status == "failed"
        # Twice with others, once alone.
        assert workers[0] == 4
        assert (await room.record(killer)).attempts == 3
        assert await room.terminals(killer) == ["error"]
