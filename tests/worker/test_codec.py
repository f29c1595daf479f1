"""Agents that answer in the OpenAI codec: the model's own events, text, and what the runtime writes for them (SDK-5)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent_worker import CancelRequest, Reasoning, Turn, Worker
from agent_worker.output.message import OutputChunk
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import Settings
from selfhost_transport.turns.codecs import OPENAI
from selfhost_transport.turns.messages_openai import OpenAIMessage, responses_input
from selfhost_transport.turns.tree import SessionTree
from tests.processes import wait_until
from tests.turns.transcripts import load
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]

RECORDED = load("60")


async def answers(room: Room, turn: str) -> list[OpenAIMessage]:
    """The messages of a turn as a late joiner with the codec sees them."""
    tree = SessionTree(room.name, OPENAI)
    for message in await room.history():
        tree.apply(message)
    node = tree.run_node(turn)
    found = [state.snapshot().message for state in node.messages.values()] if node is not None else []
    return [message for message in found if isinstance(message, OpenAIMessage)]


async def test_the_models_events_as_they_come(room: Room, settings: MakeSettings, running: Run) -> None:
    worker = Worker(settings())
    prompts: list[list[dict[str, Any]]] = []

    @worker.agent("assistant", codec="openai-responses")
    async def agent(turn: Turn) -> None:
        prompts.append(responses_input(said.message for said in await turn.messages()))
        for stream in RECORDED.raw["agent_streams"]:
            await turn.pipe(stream["chunks"])

    await running(worker)
    turn = await room.send("Weather in Paris?")
    assert (await room.ended(turn)).status == "completed"
    assert prompts == [[RECORDED.raw["final_view"][0]["message"]["items"][0]]]
    recorded = [shown["message"]["items"] for shown in RECORDED.raw["final_view"]]
    assert [list(answer.items) for answer in await answers(room, turn)] == [recorded[1], recorded[3]]


async def test_an_event_that_cannot_be_carried_ends_the_turn(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant", codec="openai-responses", max_attempts=1)
    async def agent(turn: Turn) -> AsyncIterator[OutputChunk]:
        yield "said "
        yield {"type": "response.audio.delta", "delta": "…"}

    await running(worker)
    turn = await room.send("go", max_attempts=1)
    assert (await room.ended(turn)).status == "failed"
    assert [answer.text for answer in await answers(room, turn)] == ["said "]


async def test_can_10_a_closing_note_and_a_cut_off_answer(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(rollup_window_ms=0))

    @worker.agent("assistant", codec="openai-responses")
    async def agent(turn: Turn) -> AsyncIterator[OutputChunk]:
        yield Reasoning("hm")
        yield "first "
        await turn.aborted.wait()

    @worker.on_cancel("assistant")
    async def hook(request: CancelRequest) -> None:
        request.closing_note("[cancelled]")

    await running(worker)
    turn = await room.send("go")

    async def said() -> bool:
        return any(answer.text for answer in await answers(room, turn))

    await wait_until(said)
    await room.cancel(turn)
    assert (await room.ended(turn)).status == "cancelled"
    cut, note = await answers(room, turn)
    assert (cut.text, note.text) == ("first ", "[cancelled]")
    assert [item["type"] for item in cut.items] == ["reasoning", "message"]
    assert note.items[0]["status"] == "completed"


async def test_an_unknown_codec_is_reported_where_it_is_named(settings: MakeSettings) -> None:
    with pytest.raises(InvalidArgument, match="openai-responses"):
        Worker(settings()).agent("assistant", codec="nothing")
