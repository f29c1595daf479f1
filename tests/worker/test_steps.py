"""The steps of a turn that a process holds: attempts, cancels, how they end (DUR-2 to DUR-4, DUR-7, DUR-14 to DUR-17)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from agent_worker import AgentError, ToolCall
from selfhost_transport.errors import (
    LeaseLost,
    StepOpen,
)
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from tests.worker.hosts import OpenSession, session
from tests.worker.people import People
from tests.worker.session import Room, header
from tests.worker.steps import say, steps_of, visible

__all__ = ["session"]


async def failing(text: str) -> AsyncIterator[str]:
    yield text
    raise AgentError("the provider failed")


async def test_dur_2_a_later_attempt_at_a_step_replaces_the_earlier_one(
    room: Room, session: OpenSession
) -> None:
    name = await room.send("go")
    async with await (await session()).create_turn(name) as turn, turn.step("write") as step:
        await say(step, "attempt 1")
    async with await (await session()).adopt(name) as turn:
        async with turn.step("write") as step:
            assert step.attempt == 2
            await say(step, "attempt 2")
        await turn.complete()
    assert await visible(room, name) == "attempt 2"
    assert [output.text for output in await room.outputs(name)] == ["attempt 1", "attempt 2"]
    assert await steps_of(room, name) == [("write", "complete", 2)]


async def test_tol_17_a_retried_tool_step_replaces_the_failed_attempt(
    room: Room, session: OpenSession
) -> None:
    turn = await (await session()).create_turn(await room.send("go"))
    for sky in ("cloudy", "clear"):
        try:
            async with turn.step("look") as step:
                await step.tool(ToolCall("weather", {}), lambda sky=sky: {"sky": sky})
                if step.attempt == 1:
                    raise AgentError("lost after the tool ran")
        except AgentError:
            assert step.attempt == 1
    await turn.complete()
    calls = [part for part in await People(room).parts(turn.turn_id) if isinstance(part, ui.ToolPart)]
    assert [call.output for call in calls] == [{"sky": "clear"}]


async def test_dur_3_a_fresh_step_id_appends_with_a_warning(
    room: Room, session: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    name = await room.send("go")
    with pytest.raises(AgentError):
        async with await (await session()).create_turn(name) as turn, turn.step("write-1") as step:
            (await step.pipe(failing("part "))).raise_for_error()
    caplog.set_level(logging.WARNING)
    async with await (await session()).adopt(name) as turn:
        async with turn.step("write-2") as step:
            await say(step, "whole")
        async with turn.step("more") as step:
            await say(step, "!")
        await turn.complete()
    assert await visible(room, name) == "part whole!"
    warned = [record.getMessage() for record in caplog.records if "step.appends" in record.getMessage()]
    assert len(warned) == 1 and "step=write-2 after=write-1" in warned[0]


async def test_dur_3_going_on_with_the_next_step_is_no_reason_to_warn(
    room: Room, session: OpenSession, caplog: pytest.LogCaptureFixture
) -> None:
    name = await room.send("go")
    async with await (await session()).create_turn(name) as turn, turn.step("plan") as step:
        await say(step, "one ")
    async with await (await session()).adopt(name) as turn, turn.step("write") as step:
        await say(step, "two ")
    assert "step.appends" not in caplog.text
    # Without an id of its own a retry of this process could not be distinguished from going on.
    async with await (await session()).adopt(name) as turn:
        async with turn.step() as step:
            await say(step, "three")
        await turn.complete()
    assert "step.appends" in caplog.text
    assert await visible(room, name) == "one two three"


async def test_dur_4_one_step_is_open_at_a_time(room: Room, session: OpenSession) -> None:
    turn = await (await session()).create_turn(await room.send("go"))
    async with turn.step("one") as step:
        with pytest.raises(StepOpen) as refused:
            async with turn.step("two"):
                raise AssertionError("two steps are open")
        assert refused.value.info.detail == {"turn": turn.turn_id, "step": "one"}
        for not_now in (turn.complete, turn.detach):
            with pytest.raises(StepOpen):
                await not_now()
        await say(step, "unharmed")
    await turn.complete()
    starts = [m for m in await room.of_turn(turn.turn_id) if m.name == h.AI_STEP_START]
    assert [header(message, h.STEP_ID) for message in starts] == ["one"]


async def test_p2_a_cancel_stops_the_step_that_runs(room: Room, session: OpenSession) -> None:
    turn = await (await session()).create_turn(await room.send("go"))
    began, stopped = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[str]:
        try:
            yield "text"
            began.set()
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def work() -> None:
        async with turn.step("write") as step:
            await step.pipe(endless())

    working = asyncio.create_task(work())
    await began.wait()
    cancelled = await room.cancel(turn.turn_id)
    with pytest.raises(LeaseLost) as lost:
        await working
    assert stopped.is_set() and turn.aborted.is_set() and not turn.held
    assert (lost.value.info.detail or {})["status"] == "cancelled"
    assert await room.content_after(turn.turn_id, cancelled.position) == []
    assert await room.terminals(turn.turn_id) == ["cancelled"]
    assert await steps_of(room, turn.turn_id) == [("write", "cancelled", 1)]


async def test_dur_7_ending_the_session_stops_a_step_that_runs(room: Room, session: OpenSession) -> None:
    agent = await session()
    turn = await agent.create_turn(await room.send("go"))
    began = asyncio.Event()

    async def work() -> None:
        async with turn.step("write") as step:
            await say(step, "text")
            began.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await began.wait()
    await agent.end()
    with pytest.raises(LeaseLost):
        await working
    assert await room.terminals(turn.turn_id) == ["cancelled"]
    assert await steps_of(room, turn.turn_id) == [("write", "cancelled", 1)]


async def test_dur_14_a_retry_that_writes_nothing_leaves_an_empty_step(
    room: Room, session: OpenSession
) -> None:
    turn = await (await session()).create_turn(await room.send("go"))
    for text in ("old text", ""):
        async with turn.step("write") as step:
            if text:
                await say(step, text)
    await turn.complete()
    assert await visible(room, turn.turn_id) == ""
    assert await steps_of(room, turn.turn_id) == [("write", "complete", 2)]


async def test_dur_16_a_failure_before_a_step_starts_writes_nothing(room: Room, session: OpenSession) -> None:
    name = await room.send("go")
    async with await (await session()).create_turn(name) as turn, turn.step("plan") as step:
        await say(step, "one")
    before = await room.log()
    with pytest.raises(RuntimeError):
        async with await (await session()).adopt(name):
            raise RuntimeError("the workflow failed")
    assert await room.log() == before
    assert (await room.record(name)).status == "active"
    await (await (await session()).adopt(name)).complete()


@pytest.mark.parametrize("step_id", [None, "write"])
async def test_dur_17_a_retry_after_a_failed_step_replaces_it(
    room: Room, session: OpenSession, step_id: str | None
) -> None:
    turn = await (await session()).create_turn(await room.send("go"))
    with pytest.raises(AgentError):
        async with turn.step(step_id) as step:
            (await step.pipe(failing("half "))).raise_for_error()
    async with turn.step(step_id) as step:
        await say(step, "whole")
    async with turn.step() as step:
        await say(step, " and more")
    await turn.complete()
    assert await visible(room, turn.turn_id) == "whole and more"
    assert [(status, attempts) for _, status, attempts in await steps_of(room, turn.turn_id)] == [
        ("complete", 2),
        ("complete", 1),
    ]


async def test_a_first_step_that_is_repeated_goes_on_with_its_turn(room: Room, session: OpenSession) -> None:
    name = await room.send("go")
    for attempt in (1, 2):
        async with (
            await (await session()).create_turn(name, or_adopt=True) as turn,
            turn.step("plan") as step,
        ):
            assert step.attempt == attempt
            await say(step, f"attempt {attempt}")
    assert await visible(room, name) == "attempt 2"


async def test_leaving_the_session_fails_the_step_that_runs(room: Room, session: OpenSession) -> None:
    agent = await session()
    turn = await agent.create_turn(await room.send("go"))
    began = asyncio.Event()

    async def work() -> None:
        async with turn.step("write") as step:
            await say(step, "half")
            began.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    async with agent:
        await began.wait()
    with pytest.raises(LeaseLost):
        await working
    assert await steps_of(room, turn.turn_id) == [("write", "failed", 1)]
    turn = await agent.adopt(turn.turn_id)
    async with turn.step() as step:
        assert step.attempt == 2
    await turn.complete()
