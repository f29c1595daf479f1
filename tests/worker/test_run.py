"""A turn from its send to its terminal, with a worker in this process and a real Redis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agent_worker import Worker
from agent_worker.scripted import scripted
from selfhost_transport.settings import Settings
from tests.worker.session import Room, numbered

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


def scripted_worker(settings: Settings) -> Worker:
    worker = Worker(settings)
    worker.agent("assistant")(scripted)
    return worker


async def test_a_scripted_turn_end_to_end(room: Room, settings: MakeSettings, running: Run) -> None:
    await running(scripted_worker(settings()))
    turn = await room.send("script: tokens=50")
    assert (await room.ended(turn)).status == "completed"
    assert await room.text(turn) == numbered(50)
    assert await room.names(turn) == [
        "ai-run-start", "ai-step-start", "start", "start-step", "text", "finish-step", "finish",
        "ai-step-end", "ai-run-end",
    ]  # fmt: skip
    assert await room.terminals(turn) == ["complete"]
