"""Code that blocks the loop is found and named, and costs the other turns no more than the time it blocks."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agent_worker import Turn, Worker
from selfhost_transport.settings import Settings
from selfhost_transport.store.entries import Appended
from tests.processes import Stack, wait_until
from tests.promptness import assert_quick, prompt
from tests.worker.session import Room, numbered

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]

# A worker that a busy machine keeps waiting for a second keeps its turns.
LEASE_MS = 2000


def blocking_worker(settings: Settings, blocks_s: float) -> Worker:
    worker = Worker(settings)

    @worker.agent("blocker")
    async def blocker(turn: Turn) -> AsyncIterator[str]:
        yield "a "
        blocked_at.append(time.time())
        busy_by_mistake(blocks_s)
        yield "b "

    @worker.agent("neighbour")
    async def neighbour(turn: Turn) -> AsyncIterator[str]:
        yield "x "
        await wait_until(lambda: blocked_at)
        yield "y "

    blocked_at: list[float] = []
    worker.blocked_at = blocked_at  # type: ignore[attr-defined]
    return worker


def busy_by_mistake(seconds: float) -> None:
    time.sleep(seconds)


async def test_blocking_code_is_named_within_a_second_and_no_lease_is_lost(
    room: Room, settings: MakeSettings, running: Run, stack: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    # Another worker looks for leases that have expired.
    await stack.worker()
    worker = await running(blocking_worker(settings(lease_ms=LEASE_MS), blocks_s=2.5 * LEASE_MS / 1000))
    blocked_at: list[float] = worker.blocked_at  # type: ignore[attr-defined]

    @prompt
    async def is_named() -> None:
        blocked_at.clear()
        caplog.clear()
        turns = [await room.send("go", agent=name) for name in ("neighbour", "blocker")]
        for turn in turns:
            record = await room.ended(turn)
            assert (record.status, record.attempts) == ("completed", 1)
        (reported,) = [
            record
            for record in caplog.records
            if "role=agent agent=blocker session=room" in record.getMessage()
        ]
        assert reported.levelno == logging.ERROR
        assert reported.getMessage().startswith("worker.loop_blocked")
        assert "busy_by_mistake(blocks_s)" in reported.getMessage()
        assert_quick(reported.created - blocked_at[0], 1.0)

    await is_named()
    await wait_until(lambda: worker.statistics().blocked[1])
    count, seconds = worker.statistics().blocked
    assert count >= 1 and seconds > 2


async def test_what_a_blocking_agent_yields_is_streamed_meanwhile(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(rollup_window_ms=0))

    @worker.agent("blocker")
    async def blocker(turn: Turn) -> AsyncIterator[str]:
        for number in range(10):
            busy_by_mistake(0.05)
            yield f"{number} "

    await running(worker)
    turn = await room.send("go", agent="blocker")
    assert (await room.ended(turn)).status == "completed"
    assert await room.text(turn) == numbered(10)
    # It left in chunks as it came, though the agent never waits.
    chunks = [entry for entry in await room.log() if isinstance(entry, Appended) and entry.data]
    assert len(chunks) >= 4
    assert chunks[-1].position.ms - chunks[0].position.ms > 150
