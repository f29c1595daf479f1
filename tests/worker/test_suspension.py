"""Client tools and approvals: a turn waits for people and goes on under its id (TOL-2 to TOL-9, HIL-1 to HIL-12)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_worker import Answer, ToolCall, Turn, Worker
from agent_worker.agent.suspension import Wait
from agent_worker.scripted.model import scripted
from selfhost_transport.errors import Conflict, InvalidArgument, TurnEnded
from selfhost_transport.settings import Settings
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs, ui
from selfhost_transport.wire.message import Message
from tests.processes import wait_until
from tests.worker.people import People
from tests.worker.session import Room, header

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]
ONE_SUSPENSION = ["ai-run-start", "ai-run-suspend", "ai-run-resume", "ai-run-end"]


@pytest.fixture
def people(room: Room) -> People:
    return People(room)


async def serve(running: Run, settings: MakeSettings, agent: Callable[[Turn], Any] = scripted) -> Worker:
    worker = Worker(settings())
    worker.agent("assistant")(agent)
    return await running(worker)


async def test_tol_2_and_trn_15_a_client_tool_suspends_and_the_same_turn_goes_on(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    await serve(running, settings)
    turn = await room.send("script: tool=client tokens=3")
    await people.suspended(turn)
    assert (await people.result(turn, "it rains", client_id="bob")).status == "pending"
    assert (await room.ended(turn)).status == "completed"
    assert await people.lifecycle(turn) == ONE_SUSPENSION
    (tool,) = [part for part in await people.parts(turn) if isinstance(part, ui.ToolPart)]
    assert (tool.state, tool.output) == ("output-available", "it rains")
    assert await room.text(turn) == "0 1 2 "
    finishes = [m for m in await room.of_turn(turn) if (hs := h.read_headers(m)) and hs.kind == "finish"]
    reasons = [hs.field("finishReason") for m in finishes if (hs := h.read_headers(m))]
    assert reasons == ["tool-calls", "stop"]


async def test_trn_16_owner_and_author_of_the_continuation(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    seen: list[tuple[str | None, str | None, int]] = []

    async def agent(turn: Turn) -> None:
        seen.append((turn.owner, turn.input_client, turn.invocation))
        if not await turn.answers():
            await turn.suspend([ToolCall("pick", call_id="c")])

    await serve(running, settings, agent)
    turn = await room.send("go", client_id="alice")
    await people.suspended(turn)
    await people.result(turn, "x", client_id="bob")
    await room.ended(turn)
    assert seen == [("alice", "alice", 0), ("alice", "bob", 1)]
    (resume,) = [m for m in await room.of_turn(turn) if m.name == h.AI_RUN_RESUME]
    assert (header(resume, h.RUN_CLIENT_ID), header(resume, h.INPUT_CLIENT_ID)) == ("alice", "bob")


async def test_hil_1_and_hil_4_an_approved_tool_runs_once_and_a_denied_one_never(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    paid: list[str] = []
    decided: list[tuple[bool | None, str | None, str | None]] = []

    async def pay(to: str) -> str:
        paid.append(to)
        return "paid"

    async def agent(turn: Turn) -> None:
        answers = await turn.answers()
        if not answers:
            await turn.suspend([ToolCall("pay", {"to": await turn.text()}, needs_approval=True)])
        (answer,) = answers
        decided.append((answer.approved, answer.client_id, answer.reason))
        if answer.approved:
            await turn.tool(answer.call, pay)
        await turn.pipe(["done"])

    await serve(running, settings, agent)
    yes, no = await room.send("shop"), await room.send("thief")
    for turn in (yes, no):
        await people.suspended(turn)
    await people.approve(yes, client_id="bob")
    await people.approve(no, False, client_id="carol", reason="no!")
    assert [(await room.ended(turn)).status for turn in (yes, no)] == ["completed", "completed"]
    assert paid == ["shop"]
    assert sorted(decided, key=str) == [(False, "carol", "no!"), (True, "bob", None)]
    states = [p.state for t in (yes, no) for p in await people.parts(t) if isinstance(p, ui.ToolPart)]
    assert states == ["output-available", "output-denied"]


@pytest.mark.parametrize(("reason", "reported"), [("", "denied by the user"), ("too dear", "too dear")])
async def test_hil_11_and_hil_12_the_model_sees_the_answer(
    room: Room, people: People, settings: MakeSettings, running: Run, reason: str, reported: str
) -> None:
    await serve(running, settings)
    approved = await room.send("script: tool=server approve=1 echo_context=1")
    denied = await room.send("script: tool=server approve=1 echo_context=1")
    for turn in (approved, denied):
        await people.suspended(turn)
    await people.approve(approved)
    await people.approve(denied, False, reason=reason)
    for turn in (approved, denied):
        await room.ended(turn)
    (tool,) = tools_in(await room.text(approved))
    assert (tool["state"], tool["output"]) == (
        "output-available",
        {"answer": "what is known of the scripted question"},
    )
    (tool,) = tools_in(await room.text(denied))
    assert tool["state"] == "output-denied" and reported in tool["errorText"]


def tools_in(context: str) -> list[dict[str, Any]]:
    """The tool parts in a conversation that the scripted model streamed back."""
    return [p for said in json.loads(context) for p in said["parts"] if p["type"].startswith("tool-")]


async def test_tol_5_and_hil_7_several_calls_one_resume(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    calls = [
        ToolCall("pick", {"n": 1}, "c1"),
        ToolCall("pick", {"n": 2}, "c2"),
        ToolCall("pay", {}, "c3", needs_approval=True),
        ToolCall("pay", {}, "c4", needs_approval=True),
    ]
    got: list[list[Answer]] = []

    async def agent(turn: Turn) -> None:
        if answers := await turn.answers():
            got.append(answers)
        else:
            await turn.suspend(calls)

    await serve(running, settings, agent)
    turn = await room.send("go")
    await people.suspended(turn)
    await people.approve(turn, call_id="c4", client_id="bob")
    await people.result(turn, "two", call_id="c2")
    await people.approve(turn, False, call_id="c3")
    assert (await room.record(turn)).status == "suspended"
    await people.result(turn, "one", call_id="c1", client_id="bob")
    await room.ended(turn)
    assert await people.lifecycle(turn) == ONE_SUSPENSION
    (answers,) = got
    assert [(a.call.call_id, a.approved, a.client_id) for a in answers] == [
        ("c4", True, "bob"), ("c2", None, "alice"), ("c3", False, "alice"), ("c1", None, "bob"),
    ]  # fmt: skip


async def test_tol_6_an_answer_before_the_suspension_is_kept(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    announced, go_on = asyncio.Event(), asyncio.Event()

    async def agent(turn: Turn) -> None:
        if await turn.answers() and turn.invocation:
            await turn.pipe(["thanks"])
            return
        async with turn.message():
            call = ToolCall("pick", {}, "c1")
            await turn.pipe(call.chunks())
            announced.set()
            await go_on.wait()
            await turn.suspend([call])

    await serve(running, settings, agent)
    turn = await room.send("go")
    await announced.wait()
    assert (await people.result(turn, "early")).status == "active"
    go_on.set()
    assert (await room.ended(turn)).status == "completed"
    assert await people.lifecycle(turn) == ONE_SUSPENSION
    assert await room.text(turn) == "thanks"


async def test_tol_7_and_hil_2_the_first_answer_wins(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    await serve(running, settings)
    for _ in range(20):
        turn = await room.send("script: tool=client tokens=1")
        await people.suspended(turn)
        results = await asyncio.gather(
            people.result(turn, "alice's"),
            people.result(turn, "bob's", client_id="bob"),
            return_exceptions=True,
        )
        (loser,) = [result for result in results if isinstance(result, BaseException)]
        assert isinstance(loser, Conflict)
        assert loser.info.detail is not None and loser.info.detail["reason"] == "already_resolved"
        await room.ended(turn)
        assert await people.lifecycle(turn) == ONE_SUSPENSION


async def test_tol_8_an_error_as_the_result(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    await serve(running, settings)
    turn = await room.send("script: tool=client echo_context=1")
    await people.suspended(turn)
    part, message_id = await people.open_call(turn)
    failed = inputs.tool_result_error(
        message_id, turn, part.tool_call_id, "no camera", event_id=inputs.new_id(), client_id="alice"
    )
    await people.answer(turn, failed)
    await room.ended(turn)
    (tool,) = tools_in(await room.text(turn))
    assert (tool["state"], tool["errorText"]) == ("output-error", "no camera")


@pytest.mark.parametrize("default", ["deny", "approve"])
async def test_tol_9_silence_counts_as_an_answer(
    room: Room, people: People, settings: MakeSettings, running: Run, default: str
) -> None:
    got: list[Answer] = []

    async def agent(turn: Turn) -> None:
        if answers := await turn.answers():
            got.extend(answers)
            return
        calls = [ToolCall("pick", {}, "c1"), ToolCall("pay", {}, "c2", needs_approval=True)]
        await turn.suspend(calls, timeout=0.05, default=default)

    await serve(running, settings, agent)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    assert await people.lifecycle(turn) == ONE_SUSPENSION
    by_call = {answer.call.call_id: answer for answer in got}
    assert by_call["c1"].error is not None
    assert by_call["c2"].approved is (default == "approve")
    # Silence has answered: who comes later hears so, as after any first answer (TOL-7).
    with pytest.raises(Conflict) as late:
        await people.result(turn, "late", call_id="c1")
    assert late.value.info.detail is not None and late.value.info.detail["reason"] == "already_resolved"


@pytest.mark.parametrize("answered", [True, False])
async def test_hil_5_silence_is_escalated_and_then_decided(
    room: Room, people: People, settings: MakeSettings, running: Run, answered: bool
) -> None:
    got: list[Answer] = []

    async def agent(turn: Turn) -> None:
        if answers := await turn.answers():
            got.extend(answers)
            return
        call = ToolCall("pay", {}, "c1", needs_approval=True)
        await turn.suspend([call], timeout=60 if answered else 0.2, escalate_after=0.1)

    await serve(running, settings, agent)
    turn = await room.send("go")

    async def escalated() -> list[Message]:
        return [message for message in await room.of_turn(turn) if message.name == h.AI_RUN_ESCALATED]

    (reported,) = await wait_until(escalated)
    assert json.loads(header(reported, h.TOOL_CALL_IDS) or "") == ["c1"] and reported.client_id == "assistant"
    if answered:
        await people.approve(turn)
    assert (await room.ended(turn)).status == "completed"
    assert [answer.approved for answer in got] == [answered]
    assert len(await escalated()) == 1
    # Other readers know nothing of it, and read the turn as before.
    assert await people.lifecycle(turn) == ONE_SUSPENSION


@pytest.mark.parametrize("seconds", [0, 5, 6])
async def test_hil_5_an_escalation_comes_before_the_timeout(seconds: float) -> None:
    with pytest.raises(InvalidArgument):
        Wait((ToolCall("pay", {}, "c1", needs_approval=True),), ("m",), 5, escalate_s=seconds)


async def test_int_11_and_hil_8_cancelled_while_it_waits(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    await serve(running, settings)
    turn = await room.send("script: tool=server approve=1 tokens=3")
    await people.suspended(turn)
    await room.cancel(turn)
    assert await room.terminals(turn) == ["cancelled"]
    before = await room.log()
    with pytest.raises(TurnEnded):
        await people.approve(turn)
    assert await room.log() == before
    # TOL-11: nothing is left to be answered by a client; the call shows no result.
    (tool,) = [part for part in await people.parts(turn) if isinstance(part, ui.ToolPart)]
    assert tool.state == "approval-requested"


async def test_hil_9_a_new_message_while_an_approval_is_pending(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    await serve(running, settings)
    first = await room.send("script: tool=server approve=1 tokens=3")
    await people.suspended(first)
    _, message_id = await people.open_call(first)
    second = await room.send("script: echo_context=1", parent=message_id)
    assert (await room.ended(second)).status == "completed"
    (tool,) = tools_in(await room.text(second))
    assert tool["state"] == "output-error"
    assert (await room.record(first)).status == "suspended"
    await people.approve(first)
    assert (await room.ended(first)).status == "completed"


async def test_hil_3_another_worker_goes_on(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    first = await serve(running, settings)
    turn = await room.send("script: tool=server approve=1 tokens=3")
    await people.suspended(turn)
    first.stop()
    await wait_until(lambda: first.stopped)
    await people.approve(turn)
    assert (await room.record(turn)).status == "pending"
    await serve(running, settings)
    assert (await room.ended(turn)).status == "completed"


async def test_tol_4_server_and_client_tools_in_one_turn(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    async def lookup() -> str:
        return "known"

    async def agent(turn: Turn) -> None:
        if await turn.answers():
            await turn.tool(ToolCall("after", {}, "c3"), lookup)
            await turn.pipe(["all done"])
            return
        async with turn.message():
            await turn.tool(ToolCall("before", {}, "c1"), lookup)
            await turn.suspend([ToolCall("pick", {}, "c2")])

    await serve(running, settings, agent)
    turn = await room.send("go")
    await people.suspended(turn)
    await people.result(turn, "picked", call_id="c2")
    await room.ended(turn)
    tools = [part for part in await people.parts(turn) if isinstance(part, ui.ToolPart)]
    assert [(t.tool_call_id, t.output) for t in tools] == [("c1", "known"), ("c2", "picked"), ("c3", "known")]
