"""A source that computes lets the loop do its other work; one that waits has let it do so already."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from agent_worker.output.message import Output
from selfhost_transport.store.turn_request import unpack_context
from selfhost_transport.turns import chunks as p
from tests.worker.session import Room
from tests.worker.test_writer import Attempt, attempt

CHUNKS = 10
LONG_S = 0.012
"""Longer than a source may compute without a pause."""


class Counted:
    """How often an attempt's source gave way while it was taken."""

    def __init__(self, it: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self._it = it
        self._drain = it.writer.drain
        monkeypatch.setattr(it.writer, "drain", self._counted)

    async def _counted(self) -> None:
        self.times += 1
        await self._drain()

    async def take(self, source: AsyncIterator[p.Chunk]) -> None:
        it = self._it
        output = Output(unpack_context(it.lease.context), it.writer, it.lease.step_start_serial)
        await output.write([p.TextStart("t")])
        await output.take(source)
        await output.finish()
        await it.writer.finish_writes()


def compute() -> None:
    """What an agent should not do in a coroutine."""
    time.sleep(LONG_S)


async def test_a_source_that_computes_gives_way(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    it = await attempt(room, window_ms=0)
    # Redis is given the script with the first call of it.
    (await it.open_text()).add("x")
    await it.writer.finish_writes()
    counted = Counted(it, monkeypatch)

    async def computes() -> AsyncIterator[p.Chunk]:
        for number in range(CHUNKS):
            compute()
            yield p.TextDelta("t", f"{number} ")

    await counted.take(computes())
    assert counted.times == CHUNKS


async def test_a_source_that_waits_does_not_give_way_as_well(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = await attempt(room, window_ms=0)
    other = await attempt(room, window_ms=0)
    other.writer.flush_timer = it.writer.flush_timer  # of the same worker
    beside = await other.open_text()
    counted = Counted(it, monkeypatch)

    async def waits() -> AsyncIterator[p.Chunk]:
        for number in range(CHUNKS):
            compute()
            beside.add("x")
            # Redis answers another turn: the loop has turned.
            await other.writer.finish_writes()
            yield p.TextDelta("t", f"{number} ")

    await counted.take(waits())
    assert not counted.times
