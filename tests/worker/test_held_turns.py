"""Turns that are created, adopted, detached, waited for and ended by processes that hold them (DUR-1, DUR-5 to DUR-7, DUR-15)."""

from __future__ import annotations

import asyncio

import pytest

from agent_worker import AgentError, ToolCall
from selfhost_transport.errors import (
    InvalidArgument,
    LeaseLost,
    NotFound,
    SteerWaiting,
    TurnEnded,
    TurnHeld,
    TurnNotStarted,
    TurnStarted,
    TurnSuspended,
)
from selfhost_transport.store.fleet import Fleet
from selfhost_transport.store.turn_store import Policy
from selfhost_transport.turns import headers as h
from tests.processes import wait_until
from tests.worker.hosts import OpenSession, session
from tests.worker.people import People
from tests.worker.session import Room, header
from tests.worker.steps import say, steps_of, visible

__all__ = ["session"]


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
