"""A turn handed from process to process (DUR-1), and taken from one that was killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from agent_worker import AgentSession, HeldTurn
from selfhost_transport.errors import TurnHeld
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.turns import headers as h
from tests.processes import Proc, Stack, wait_until
from tests.worker.hosts import OpenSession, session
from tests.worker.session import Room
from tests.worker.steps import say, steps_of, visible

__all__ = ["session"]

# A process that a busy machine keeps waiting for a second or two keeps its turn.
LEASE_MS = 3000


async def activity(stack: Stack, what: str, turn: str) -> Proc:
    env = {"PYTHONPATH": str(Path.cwd()), f"{ENV_PREFIX}LEASE_MS": str(LEASE_MS)}
    return await stack.run(
        sys.executable, "-m", "tests.worker.step_process", stack.redis_url, what, turn, env=env
    )


async def adopted(agent: AgentSession, name: str, what: str) -> HeldTurn:
    """A turn of another process, once its lease is over."""

    async def adopt() -> HeldTurn | None:
        try:
            return await agent.adopt(name)
        except TurnHeld:
            return None

    turn = await wait_until(adopt, what=what)
    assert turn is not None
    return turn


async def test_dur_1_one_process_starts_a_turn_and_another_finishes_it(room: Room, stack: Stack) -> None:
    turn = await room.send("go")
    for what in ("start", "finish"):
        assert await (await activity(stack, what, turn)).wait() == 0
    assert await visible(room, turn) == "one two"
    assert (await room.names(turn)).count(h.AI_RUN_START) == 1
    assert await room.terminals(turn) == ["complete"]


async def test_dur_2_the_step_of_a_killed_process_is_replaced_by_its_retry(
    room: Room, stack: Stack, session: OpenSession
) -> None:
    name = await room.send("go")
    killed = await activity(stack, "hang", name)
    async with asyncio.timeout(20):
        await killed.ready
    agent = await session()
    with pytest.raises(TurnHeld):
        await agent.adopt(name)
    killed.kill()

    turn = await adopted(agent, name, "the adoption of a killed process's turn")
    assert await steps_of(room, name) == [("one", "failed", 1)]
    async with turn.step() as step:
        assert step.attempt == 2
        await say(step, "again")
    await turn.complete()
    assert await visible(room, name) == "again"
    assert await steps_of(room, name) == [("one", "complete", 2)]
    assert await room.terminals(name) == ["complete"]


async def test_p6_a_process_that_wakes_too_late_writes_nothing(
    room: Room, stack: Stack, session: OpenSession
) -> None:
    name = await room.send("go")
    frozen = await activity(stack, "hang", name)
    async with asyncio.timeout(20):
        await frozen.ready
    frozen.pause()
    agent = await session()

    turn = await adopted(agent, name, "the adoption of a frozen process's turn")
    frozen.proceed()
    # It finds that its turn is not its own any more, and leaves with an error.
    assert await frozen.wait() != 0 and "LeaseLost" in frozen.log
    async with turn.step() as step:
        await say(step, "again")
    await turn.complete()
    assert await visible(room, name) == "again"
    assert await room.terminals(name) == ["complete"]
