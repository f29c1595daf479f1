"""A reader of a stream, and whether the provider's connection is closed soon after it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from selfhost_transport.turns import chunks as p
from tests.adapters.provider import Exchange
from tests.promptness import assert_quick

LIMIT_S = 0.25


async def closed_in_time(exchange: Exchange, since: float) -> None:
    """Raises TooSlow."""
    async with asyncio.timeout(20):
        await exchange.closed.wait()
    assert_quick(exchange.closed_at - since, LIMIT_S)


def now() -> float:
    return asyncio.get_running_loop().time()


class Reader:
    """Reads a stream in a task, as the runtime of a turn does."""

    def __init__(self, stream: AsyncIterator[p.Chunk]) -> None:
        self.chunks: list[p.Chunk] = []
        self.spoke = asyncio.Event()
        self.task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: AsyncIterator[p.Chunk]) -> None:
        async for chunk in stream:
            self.chunks.append(chunk)
            if isinstance(chunk, p.TextDelta):
                self.spoke.set()

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task
