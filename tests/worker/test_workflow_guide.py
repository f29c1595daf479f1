"""The guide's activities under an engine that repeats what fails (DUR-13): plain functions, stable step ids."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent_worker import AgentHost
from selfhost_transport.errors import StoreUnavailable
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.turns import headers as h
from tests.worker.session import Room
from tests.worker.steps import steps_of, visible

GUIDE = Path(__file__).parent.parent.parent / "docs" / "agents.md"

Activity = Callable[..., Awaitable[None]]


@pytest.fixture
def guide(redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Activity]:
    """What the guide's example defines, on the test's Redis."""
    monkeypatch.setenv(f"{ENV_PREFIX}REDIS", redis_url)
    monkeypatch.setenv(f"{ENV_PREFIX}REDIS_PREFIX", redis_prefix)
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(next(block for block in blocks if "AgentHost" in block), names)
    return names


async def engine(activity: Activity, session: str, turn: str, lost_answers: int) -> None:
    """Runs an activity again as long as its result is lost on the way to the engine."""
    for attempt in range(lost_answers + 1):
        try:
            await activity(session, turn)
            if attempt < lost_answers:
                raise StoreUnavailable("the engine did not hear of the result")
        except StoreUnavailable as error:
            assert error.retryable


async def test_dur_13_the_activities_of_the_guide_survive_an_engine_that_repeats_them(
    room: Room, guide: dict[str, Activity]
) -> None:
    turn = await room.send("otters")
    for name, lost_answers in (("begin", 1), ("draft", 2), ("finish", 0)):
        await engine(guide[name], room.name, turn, lost_answers)
    assert await visible(room, turn) == "A draft about otters. Done."
    assert await steps_of(room, turn) == [("draft", "complete", 3), ("finish", "complete", 1)]
    assert (await room.names(turn)).count(h.AI_RUN_START) == 1
    assert await room.terminals(turn) == ["complete"]


async def test_dur_13_the_dispatcher_of_the_guide_starts_workflows(
    room: Room, guide: dict[str, Activity]
) -> None:
    started: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def start_workflow(session: str, turn: str) -> None:
        started.put_nowait((session, turn))

    dispatching = asyncio.ensure_future(guide["dispatch"](start_workflow))
    turn = await room.send("otters", agent="writer")
    async with asyncio.timeout(10):
        assert await started.get() == (room.name, turn)
    dispatching.cancel()
    await asyncio.gather(dispatching, return_exceptions=True)
    async with AgentHost() as host:
        await (await host.session(room.name).create_turn(turn)).cancel()
