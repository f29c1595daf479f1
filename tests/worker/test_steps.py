"""Turns that are worked on in steps, and handed from one process to another (DUR-1 to DUR-7, DUR-14 to DUR-17)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from agent_worker import AgentError, ToolCall
from selfhost_transport.errors import (
    InvalidArgument,
    LeaseLost,
    NotFound,
    SteerWaiting,
    StepOpen,
    TurnEnded,
    TurnHeld,
    TurnNotStarted,
    TurnStarted,
    TurnSuspended,
)
from selfhost_transport.store.fleet import Fleet
from selfhost_transport.store.turn_store import Policy
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from tests.processes import wait_until
from tests.worker.hosts import OpenSession, session
from tests.worker.people import People
from tests.worker.session import Room, header
from tests.worker.steps import say, steps_of, visible

__all__ = ["session"]


async def failing(text: str) -> AsyncIterator[str]:
    yield text
    raise AgentError("the provider failed")


async def test_dur_1_another_process_adopts_a_turn_without_a_second_start(
    room: Room, session: OpenSession
) -> None:
    first, second = await session(), await session()
    name = await room.send("go")
    turn = await first.create_turn(name)
    async with turn.step("plan") as step:
        assert (await step.text(), step.attempt, turn.owner) == ("go", 1, "alice")
        await say(step, "one ")
    with pytest.raises(TurnStarted):
        await second.create_turn(name)
    with pytest.raises(TurnHeld) as held:
        await second.adopt(name)
    assert held.value.retryable
    await turn.detach()
    adopted = await second.adopt(name)
    async with adopted.step("write") as step:
        await say(step, "two")
    await adopted.complete()
    assert await visible(room, name) == "one two"
    names = await room.names(name)
    assert names.count(h.AI_RUN_START) == 1 and await room.terminals(name) == ["complete"]
    assert await steps_of(room, name) == [("plan", "complete", 1), ("write", "complete", 1)]
    # Nothing is left for a worker in the queue.
    assert await room.turns.take(0, "assistant", "w", 1000) is None
    assert (await room.record(name)).status == "completed"


async def test_p6_who_detached_writes_nothing_more(room: Room, session: OpenSession) -> None:
    first, second = await session(), await session()
    turn = await first.create_turn(await room.send("go"))
    async with turn.step("plan") as over:
        await say(over, "one")
    with pytest.raises(InvalidArgument):
        await say(over, "after the step")
    await turn.detach()
    before = len(await room.log())
    for refused in (turn.complete, turn.detach, turn.cancel, turn.steered):
        with pytest.raises(LeaseLost):
            await refused()
    with pytest.raises(LeaseLost):
        async with turn.step("more"):
            raise AssertionError("a detached turn has no steps")
    assert len(await room.log()) == before
    await (await second.adopt(turn.turn_id)).complete()


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


async def test_dur_5_what_cannot_be_adopted_is_refused_with_its_own_error(
    room: Room, session: OpenSession
) -> None:
    first, second = await session(), await session()
    waiting = await first.create_turn(await room.send("go"))
    with pytest.raises(TurnSuspended):
        async with waiting.step("ask") as step:
            await step.suspend([ToolCall("book", {}, needs_approval=True)])
    with pytest.raises(TurnSuspended):
        await second.adopt(waiting.turn_id)
    ended = await first.create_turn(await room.send("go"))
    await ended.complete()
    with pytest.raises(TurnEnded):
        await second.adopt(ended.turn_id)
    await room.cancel(waiting.turn_id)
    with pytest.raises(TurnEnded) as cancelled:
        await second.adopt(waiting.turn_id)
    assert (cancelled.value.info.detail or {})["status"] == "cancelled"


async def test_dur_6_a_cancel_before_the_adoption_counts(room: Room, session: OpenSession) -> None:
    first, second = await session(), await session()
    turn = await first.create_turn(await room.send("go"))
    async with turn.step("write") as step:
        await say(step, "text")
    await turn.detach()
    cancelled = await room.cancel(turn.turn_id)
    assert cancelled.matched == (turn.turn_id,)
    with pytest.raises(TurnEnded):
        await second.adopt(turn.turn_id)
    assert await room.terminals(turn.turn_id) == ["cancelled"]


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


async def test_trn_21_dur_7_detaching_writes_nothing_and_ending_the_session_cancels(
    room: Room, session: OpenSession
) -> None:
    first, second = await session(), await session()
    one = await first.create_turn(await room.send("one"))
    async with one.step("write") as step:
        await say(step, "text")
    before = await room.log()
    await one.detach()
    one = await second.adopt(one.turn_id)
    async with second:
        assert second.turns == [one]
    assert await room.log() == before
    assert not second.turns and not one.held
    one = await second.adopt(one.turn_id)
    two = await second.create_turn(await room.send("two"))
    other = await first.create_turn(await room.send("three"))
    await second.end()
    assert [await room.terminals(turn.turn_id) for turn in (one, two)] == [["cancelled"], ["cancelled"]]
    assert other.held and await room.terminals(other.turn_id) == []
    assert await visible(room, one.turn_id) == "text"


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


async def test_dur_15_a_turn_that_never_starts_is_waited_for_up_to_a_time(
    room: Room, session: OpenSession
) -> None:
    first, second = await session(), await session()
    name = await room.send("go")
    for unstarted in (name, "unknown"):
        with pytest.raises(TurnNotStarted) as late:
            await second.adopt(unstarted, timeout=0.05)
        assert (late.value.info.code, late.value.info.status_code, late.value.retryable) == (
            104010,
            504,
            True,
        )
    adopting = [asyncio.create_task(second.adopt(name)) for _ in range(2)]
    await wait_until(lambda: second.host.control.waiting == 2)
    turn = await first.create_turn(name)
    # Started, it belongs to its holder; both hear of that without asking again.
    for waited in adopting:
        with pytest.raises(TurnHeld):
            await waited
    await turn.complete()
    with pytest.raises(NotFound):
        await first.create_turn(input_event_id="unknown")


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


async def test_a_turn_is_held_for_longer_than_a_lease(room: Room, session: OpenSession) -> None:
    agent = await session(lease_ms=300)
    turn = await agent.create_turn(await room.send("go"))
    leases = f"{room.turns.keys.base_of(room.name)}leases"

    async def lease_end() -> float:
        return float(await room.turns.redis.command("ZSCORE", leases, f"{turn.turn_id} {room.name}"))

    first = await lease_end()

    async def renewed() -> bool:
        return await lease_end() > first + 300

    await wait_until(renewed)
    async with turn.step("write") as step:
        await say(step, "text")
    await turn.complete()
    assert await visible(room, turn.turn_id) == "text"


async def test_p3_a_turn_that_no_one_adopts_ends_with_an_error(room: Room, session: OpenSession) -> None:
    agent = await session(adoption_window_s=0.2)
    turn = await agent.create_turn(await room.send("go"))
    async with turn.step("write") as step:
        await say(step, "text")
    await turn.detach()
    assert (await room.ended(turn.turn_id)).status == "failed"
    assert await room.terminals(turn.turn_id) == ["error"]
    with pytest.raises(TurnEnded):
        await agent.adopt(turn.turn_id)


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


async def test_a_turn_that_waits_by_policy_is_created_when_its_time_comes(
    room: Room, session: OpenSession
) -> None:
    agent = await session()
    first = await agent.create_turn(await room.send("one", policy=Policy.QUEUE))
    waiting = await room.send("two", policy=Policy.QUEUE)
    with pytest.raises(TurnNotStarted):
        await agent.create_turn(waiting, timeout=0.05)
    creating = asyncio.create_task(agent.create_turn(waiting))
    await wait_until(lambda: agent.host.control.waiting)
    await first.complete()
    await (await creating).complete()
    assert await room.terminals(waiting) == ["complete"]


async def test_a_suspended_turn_is_created_again_once_people_have_answered(
    room: Room, session: OpenSession
) -> None:
    agent, people = await session(), People(room)
    name = await room.send("go")
    turn = await agent.create_turn(name)
    with pytest.raises(TurnSuspended):
        async with turn.step("ask") as step:
            await step.suspend([ToolCall("book", {}, needs_approval=True)])
    await people.approve(name, client_id="bob")
    turn = await agent.create_turn(name)
    async with turn.step("answer") as step:
        (answer,) = await step.answers()
        await say(step, f"{answer.client_id} {answer.approved}")
    await turn.complete()
    assert await visible(room, name) == "bob True"
    assert await people.lifecycle(name) == [
        h.AI_RUN_START, h.AI_RUN_SUSPEND, h.AI_RUN_RESUME, h.AI_RUN_END,
    ]  # fmt: skip


async def test_ste_8_a_turn_is_not_completed_over_a_steer(room: Room, session: OpenSession) -> None:
    turn = await (await session()).create_turn(await room.send("go"))
    async with turn.step("one") as step:
        await say(step, "one ")
    steer = await People(room).steer(turn.turn_id, "and now shorter")
    with pytest.raises(SteerWaiting):
        await turn.complete()
    assert await turn.steered()
    async with turn.step("two") as step:
        assert await step.text() == "and now shorter"
        await say(step, "two")
    assert not await turn.steered()
    await turn.complete()
    node = (await People(room).tree()).run_node(turn.turn_id)
    assert node is not None and steer in node.answered_steers()


async def test_ste_8_a_steer_that_a_process_took_and_did_not_answer_is_found_by_the_next(
    room: Room, session: OpenSession
) -> None:
    name = await room.send("go")
    async with await (await session()).create_turn(name) as turn:
        async with turn.step("one") as step:
            await say(step, "one ")
        await People(room).steer(name, "and now shorter")
        # Asking does not answer, however often.
        assert await turn.steered() and await turn.steered()
    async with await (await session()).adopt(name) as turn:
        with pytest.raises(SteerWaiting):
            await turn.complete()
        assert await turn.steered()
        async with turn.step("two") as step:
            assert await step.text() == "and now shorter"
            await say(step, "two")
        await turn.complete()
    assert await visible(room, name) == "one two"


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


async def test_a_turn_that_fails_carries_its_reason(room: Room, session: OpenSession) -> None:
    turn = await (await session()).create_turn(await room.send("go"))
    async with turn.step("write") as step:
        await say(step, "text")
    await turn.fail(AgentError("out of paper", code=104099))
    (end,) = [message for message in await room.of_turn(turn.turn_id) if message.name == h.AI_RUN_END]
    assert (header(end, h.ERROR_CODE), header(end, h.ERROR_MESSAGE)) == ("104099", "out of paper")
    assert await visible(room, turn.turn_id) == "text"


async def test_one_that_starts_workflows_learns_of_turns_that_wait(room: Room, session: OpenSession) -> None:
    agent = await session()
    fleet = Fleet(room.turns.redis, room.turns.keys)
    earlier = await room.send("one")
    arrivals = agent.host.arrivals("assistant")
    first = await anext(arrivals)
    assert (first.session, first.turn_id) == (room.name, earlier)
    await wait_until(lambda: fleet.size("assistant"))
    later = asyncio.create_task(anext(arrivals))
    name = await room.send("two")
    assert (await later).turn_id == name
    # Asking takes nothing; what was created is not returned again.
    await (await agent.create_turn(earlier)).complete()
    await arrivals.aclose()
    assert await fleet.size("assistant") == 0
    again = agent.host.arrivals("assistant")
    assert (await anext(again)).turn_id == name
    await again.aclose()
