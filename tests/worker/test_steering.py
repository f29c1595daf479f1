"""Messages into a running turn (STE-1 to STE-11)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent_worker import Turn, Worker
from agent_worker.scripted.model import scripted
from selfhost_transport.errors import TurnEnded
from selfhost_transport.settings import Settings
from selfhost_transport.store.turn_store import Policy
from selfhost_transport.turns import headers as h
from tests.processes import wait_until
from tests.worker.people import People
from tests.worker.session import Room, header

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


@pytest.fixture
def people(room: Room) -> People:
    return People(room)


class Gate:
    """An agent whose first pass waits inside its answer; each pass says what it answers."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self.passes: list[str] = []

    async def __call__(self, turn: Turn) -> None:
        text = await turn.text()
        self.passes.append(text)
        await turn.pipe(self.answer(text, turn.pass_number))

    async def answer(self, text: str, number: int) -> AsyncIterator[str]:
        yield f"about {text}. "
        if number == 0:
            self.began.set()
            await self.go_on.wait()


async def serve(running: Run, settings: MakeSettings, agent: Callable[[Turn], Any], **options: Any) -> Worker:
    worker = Worker(settings(rollup_window_ms=0))
    worker.agent("assistant", **options)(agent)
    return await running(worker)


async def stamps(room: Room, turn: str) -> list[list[str]]:
    """The steers that each text of a turn says it answers."""
    texts = [m for m in await room.of_turn(turn) if (hs := h.read_headers(m)) and hs.kind == "text"]
    return [h.read_ids(header(message, h.STEER_IDS) or "[]") for message in texts]


async def test_ste_1_ste_3_and_ste_10_steers_are_answered_together_in_another_pass(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    gate = Gate()
    await serve(running, settings, gate)
    turn = await room.send("cats")
    await gate.began.wait()
    ids = [await people.steer(turn, text, client_id="bob") for text in ("dogs", "birds", "fish")]
    gate.go_on.set()
    assert (await room.ended(turn)).status == "completed"
    assert gate.passes == ["cats", "dogs\nbirds\nfish"]
    assert await stamps(room, turn) == [[], ids]
    assert await people.lifecycle(turn) == ["ai-run-start", "ai-run-end"]
    steers = [m for m in await room.of_turn(turn) if m.name == h.AI_INPUT]
    assert [message.client_id for message in steers] == ["bob"] * 3


async def test_the_model_is_given_the_conversation_with_its_steers(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    await serve(running, settings, scripted)
    turn = await room.send("script: tokens=20 rate=50")

    async def began() -> bool:
        return bool(await room.text(turn))

    await wait_until(began)
    await people.steer(turn, "script: echo_context=1")
    await room.ended(turn)
    text = await room.text(turn)
    context = json.loads(text[text.index("[") :])
    assert [said["role"] for said in context] == ["user", "assistant", "user"]
    assert context[-1]["parts"][0]["text"] == "script: echo_context=1"


async def test_a_steer_that_was_read_in_time_needs_no_further_pass(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()
    passes: list[int] = []

    async def agent(turn: Turn) -> None:
        passes.append(turn.pass_number)
        waiting.set()
        await go_on.wait()
        said = await turn.messages()
        await turn.pipe([f"{len(said)} messages"])

    await serve(running, settings, agent)
    turn = await room.send("one")
    await waiting.wait()
    steer = await people.steer(turn, "two")
    go_on.set()
    await room.ended(turn)
    assert passes == [0]
    assert await room.text(turn) == "2 messages"
    assert await stamps(room, turn) == [[steer]]


async def test_ste_5_and_ste_11_after_the_end_and_repeated(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    gate = Gate()
    await serve(running, settings, gate)
    turn = await room.send("cats")
    await gate.began.wait()
    for _ in range(2):
        await people.steer(turn, "dogs", steer_id="the-same")
    gate.go_on.set()
    await room.ended(turn)
    assert gate.passes == ["cats", "dogs"]
    before = await room.log()
    with pytest.raises(TurnEnded):
        await people.steer(turn, "late")
    assert await room.log() == before


async def test_ste_6_a_suspended_turn_answers_its_steer_when_it_goes_on(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    await serve(running, settings, scripted)
    turn = await room.send("script: tool=client echo_context=1")
    await people.suspended(turn)
    steer = await people.steer(turn, "hurry up")
    assert (await room.record(turn)).status == "suspended"
    await people.result(turn, "here")
    await room.ended(turn)
    assert "hurry up" in await room.text(turn)
    assert [steer] in await stamps(room, turn)


async def test_ste_7_an_immediate_steer_ends_the_call_of_the_model(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    gate = Gate()
    await serve(running, settings, gate, on_steer="abort_call")
    turn = await room.send("cats")
    await gate.began.wait()
    steer = await people.steer(turn, "dogs")
    # No one opens the gate: the first pass never ends by itself.
    assert (await room.ended(turn)).status == "completed"
    assert gate.passes == ["cats", "dogs"]
    texts = [(o.text, o.status) for o in await room.outputs(turn)]
    assert texts == [("about cats. ", "cancelled"), ("about dogs. ", "complete")]
    assert await stamps(room, turn) == [[], [steer]]


async def test_ste_8_no_steer_is_lost_at_the_finish_line(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    async def agent(turn: Turn) -> None:
        await turn.pipe([await turn.text()])

    await serve(running, settings, agent)
    accepted: dict[str, str] = {}
    for number in range(60):
        turn = await room.send("quick")
        await asyncio.sleep(number % 12 * 0.001)
        try:
            accepted[turn] = await people.steer(turn, "wait")
        except TurnEnded:
            continue
    assert accepted
    for turn, steer in accepted.items():
        assert (await room.ended(turn)).status == "completed"
        assert any(steer in ids for ids in await stamps(room, turn))


async def test_ste_9_a_cancel_beats_a_steer(
    room: Room, people: People, settings: MakeSettings, running: Run
) -> None:
    gate = Gate()
    await serve(running, settings, gate)
    turn = await room.send("cats")
    await gate.began.wait()
    await asyncio.gather(people.steer(turn, "dogs"), room.cancel(turn))
    assert await room.terminals(turn) == ["cancelled"]
    gate.go_on.set()
    assert gate.passes == ["cats"]
    assert await stamps(room, turn) == [[]]


async def test_dbl_12_an_agent_knows_of_the_turns_that_wait(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    go_on = asyncio.Event()
    seen: list[list[str]] = []

    async def agent(turn: Turn) -> None:
        await go_on.wait()
        seen.append(await turn.pending_followups())

    await serve(running, settings, agent)
    first = await room.send("one", policy=Policy.QUEUE)
    second = await room.send("two", policy=Policy.QUEUE)
    go_on.set()
    await room.ended(first)
    await room.ended(second)
    assert seen == [[second], []]
