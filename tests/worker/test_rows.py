"""Rows that a worker and the store decide between them: attempts, reasoning, limits and policies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agent_worker import AgentError, Reasoning, Turn, Worker
from agent_worker.output.message import OutputChunk
from selfhost_transport.errors import Busy
from selfhost_transport.settings import Settings
from selfhost_transport.store.entries import Appended
from selfhost_transport.store.turn_request import build_turn_request
from selfhost_transport.store.turn_store import Policy
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from tests.processes import wait_until
from tests.worker.people import People
from tests.worker.session import Room, header, numbered, user_message
from tests.worker.steps import visible
from tests.worker.workers import scripted_worker

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


async def text_seen(room: Room, turn: str, characters: int = 1) -> None:
    async def enough() -> bool:
        return sum(len(output.text) for output in await room.outputs(turn)) >= characters

    await wait_until(enough)


async def test_trn_9_dur_2_and_dur_17_a_failed_attempt_is_replaced(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(rollup_window_ms=0))

    @worker.agent("assistant", retry_errors=True, max_attempts=2)
    async def agent(turn: Turn) -> AsyncIterator[str]:
        for token in range(20):
            if token == 10 and turn.attempt == 1:
                raise AgentError("the provider failed")
            yield f"{token} "

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    assert await visible(room, turn) == numbered(20)
    # The raw log has both attempts of the one step.
    assert [output.text for output in await room.outputs(turn)] == [numbered(10), numbered(20)]
    starts = [m for m in await room.of_turn(turn) if m.name == h.AI_STEP_START]
    assert len({header(message, h.STEP_ID) for message in starts}) == 1 and len(starts) == 2


async def test_dur_1_another_worker_adopts_a_turn_without_a_second_start(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    first = await running(scripted_worker(settings(grace_ms=0, rollup_window_ms=0)))
    turn = await room.send("script: tokens=40 rate=50")
    await text_seen(room, turn)
    first.stop()
    await wait_until(lambda: first.stopped)
    await running(scripted_worker(settings()))
    assert (await room.ended(turn)).status == "completed"
    names = [m.name for m in await room.of_turn(turn)]
    assert (names.count(h.AI_RUN_START), names.count(h.AI_STEP_START)) == (1, 2)
    assert await visible(room, turn) == numbered(40)
    assert await room.terminals(turn) == ["complete"]


async def test_dur_6_a_cancel_before_the_adoption_counts(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    first = await running(scripted_worker(settings(grace_ms=0, rollup_window_ms=0)))
    turn = await room.send("script: tokens=400 rate=50")
    await text_seen(room, turn)
    first.stop()
    await wait_until(lambda: first.stopped)
    assert (await room.record(turn)).status == "pending"
    cancelled = await room.cancel(turn)
    await running(scripted_worker(settings()))
    await room.ended(await room.send("script: tokens=1"))
    assert await room.terminals(turn) == ["cancelled"]
    assert await room.content_after(turn, cancelled.position) == []


async def test_trn_12_nothing_is_kept_between_turns(room: Room, settings: MakeSettings, running: Run) -> None:
    first = await running(scripted_worker(settings()))
    one = await room.send("script: say=the word is swordfish")
    await room.ended(one)
    first.stop()
    await wait_until(lambda: first.stopped)
    await running(scripted_worker(settings()))
    node = (await People(room).tree()).run_node(one)
    assert node is not None
    two = await room.send("script: echo_context=1", parent=next(iter(node.messages)))
    await room.ended(two)
    assert "the word is swordfish" in await room.text(two)


async def test_cot_2_a_cancel_ends_reasoning_and_keeps_it(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings(rollup_window_ms=0)))
    turn = await room.send("script: reasoning=500 rate=50 tokens=5")
    await text_seen(room, turn)
    await room.cancel(turn)
    (output,) = await room.outputs(turn)
    assert (output.kind, output.status) == ("reasoning", "cancelled") and output.text.startswith("r0 ")
    # COT-5: still there for who comes later.
    (part,) = [p for p in await People(room).parts(turn) if isinstance(p, ui.ReasoningPart)]
    assert part.text == output.text


async def test_cot_6_reasoning_is_not_fed_back_unless_asked_for(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    given: list[str] = []

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[OutputChunk]:
        for with_reasoning in (False, True):
            said = await turn.messages(with_reasoning=with_reasoning)
            given.append(str([part for one in said for part in one.message.parts]))
        yield Reasoning("a secret thought")
        yield "an answer"

    await running(worker)
    first = await room.send("one")
    await room.ended(first)
    node = (await People(room).tree()).run_node(first)
    assert node is not None
    await room.ended(await room.send("two", parent=next(iter(node.messages))))
    assert "an answer" in given[2] and "a secret thought" not in given[2]
    assert "a secret thought" in given[3]


async def test_cot_8_long_reasoning_is_gathered_like_text(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    await running(scripted_worker(settings(rollup_window_ms=100)))
    turn = await room.send("script: reasoning=20000 tokens=1")
    assert (await room.ended(turn)).status == "completed"
    (part,) = [p for p in await People(room).parts(turn) if isinstance(p, ui.ReasoningPart)]
    assert part.text == "".join(f"r{number} " for number in range(20_000))
    chunks = [entry for entry in await room.log() if isinstance(entry, Appended) and entry.data]
    assert len(chunks) < 200


async def test_int_16_a_limit_queues_and_loses_nothing(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    turns = []
    for text in ("one", "two", "three"):
        request = build_turn_request(room.name, [user_message(text)], agent="assistant", max_active=2)
        turns.append(await room.turns.submit(request))
    assert [turn.status for turn in turns] == ["pending", "pending", "queued"]
    await running(scripted_worker(settings()))
    for turn in turns:
        assert (await room.ended(turn.turn_id)).status == "completed"


async def test_dbl_5_a_busy_session_says_with_what(room: Room, settings: MakeSettings, running: Run) -> None:
    await running(scripted_worker(settings()))
    first = await room.send("script: tokens=5 hang_at=2")
    with pytest.raises(Busy) as busy:
        await room.send("second", policy=Policy.REJECT)
    assert busy.value.info.detail == {"turns": [first]}
    await room.cancel(first)
    assert (await room.ended(await room.send("third", policy=Policy.REJECT))).status == "completed"


@pytest.mark.parametrize("ending", ["complete", "cancelled", "error"])
async def test_dbl_9_the_queue_drains_after_every_ending(
    room: Room, settings: MakeSettings, running: Run, ending: str
) -> None:
    await running(scripted_worker(settings()))
    how = {"complete": "rate=50", "cancelled": "hang_at=2", "error": "rate=50 fail_at=5 always=1"}[ending]
    first = await room.send(f"script: tokens=10 {how}", policy=Policy.QUEUE)
    waiting = [await room.send(f"script: say={n}", policy=Policy.QUEUE) for n in range(3)]
    if ending == "cancelled":
        await text_seen(room, first)
        await room.cancel(first)
    for turn in (first, *waiting):
        await room.ended(turn)
    assert await room.terminals(first) == [ending]
    starts = [header(m, h.RUN_ID) for m in await room.history() if m.name == h.AI_RUN_START]
    assert starts == [first, *waiting]


async def test_str_14_a_timeout_of_the_agents_own_closes_its_message(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    async def slow(limit: asyncio.Timeout) -> AsyncIterator[str]:
        yield "something "
        limit.reschedule(0)
        await asyncio.Event().wait()

    @worker.agent("assistant")
    async def agent(turn: Turn) -> None:
        try:
            async with asyncio.timeout(None) as limit:
                await turn.pipe(slow(limit))
        except TimeoutError:
            await turn.pipe(["the model took too long"])

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    assert [(o.text, o.status) for o in await room.outputs(turn)] == [
        ("something ", "cancelled"), ("the model took too long", "complete"),
    ]  # fmt: skip
