"""Time-outs and cancel scopes of an agent's own, wherever the task happens to be when they end; and halves of characters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from agent_worker import ToolCall, Turn, Worker
from selfhost_transport.settings import Settings
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import ui
from tests.worker.people import People
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


async def timeout_handled(turn: Turn) -> AsyncIterator[str]:
    try:
        async with asyncio.timeout(0.1):
            while True:
                yield "x "
    except TimeoutError:
        yield "late"


async def anyio_scope(turn: Turn) -> AsyncIterator[str]:
    with anyio.move_on_after(0.1):
        while True:
            yield "x "
    yield "late"


async def timeout_that_ends_the_answer(turn: Turn) -> AsyncIterator[str]:
    yield "late"
    with anyio.move_on_after(0.1):
        while True:
            yield ""


async def timeout_while_waiting(turn: Turn) -> AsyncIterator[str]:
    yield "x "
    try:
        async with asyncio.timeout(0.05):
            await asyncio.sleep(5)
            yield "never"
    except TimeoutError:
        yield "late"


async def timeout_around_a_pipe(turn: Turn) -> None:
    async def forever() -> AsyncIterator[str]:
        yield "x "
        await asyncio.sleep(60)

    try:
        async with asyncio.timeout(0.1):
            await turn.pipe(forever())
    except TimeoutError:
        await turn.pipe(["late"])


async def timeout_around_a_plain_source(turn: Turn) -> None:
    import threading

    ended = threading.Event()

    def forever() -> Any:
        yield "x "
        ended.wait(5)

    try:
        async with asyncio.timeout(0.1):
            await turn.pipe(forever())
    except TimeoutError:
        await turn.pipe(["late"])
    ended.set()


async def timeout_around_a_tool(turn: Turn) -> AsyncIterator[str]:
    try:
        async with asyncio.timeout(0.1):
            await turn.tool(ToolCall("slow"), asyncio.Event().wait)
    except TimeoutError:
        yield "late"


@pytest.mark.parametrize(
    "agent",
    [
        timeout_handled, anyio_scope, timeout_that_ends_the_answer, timeout_while_waiting, timeout_around_a_pipe,
        timeout_around_a_plain_source, timeout_around_a_tool,
    ],
    ids=lambda agent: agent.__name__,
)  # fmt: skip
async def test_a_scope_of_the_agents_own_ends_what_it_is_around(
    room: Room, settings: MakeSettings, running: Run, agent: Callable[[Turn], Any]
) -> None:
    worker = Worker(settings())
    worker.agent("assistant")(agent)
    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    parts = await People(room).parts(turn)
    text = "".join(part.text for part in parts if isinstance(part, ui.TextPart))
    assert text.replace("x ", "") == "late"
    for call in parts:
        if isinstance(call, ui.ToolPart):
            assert (call.state, call.error_text) == ("output-error", "The tool slow was stopped.")


async def test_a_time_out_that_no_one_handles_is_the_turns_error(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[str]:
        async with asyncio.timeout(0.1):
            while True:
                yield "x "

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "failed"
    assert await room.terminals(turn) == ["error"]


async def test_str_16_the_second_half_of_a_character_may_come_after_other_output(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(rollup_window_ms=0))

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[p.Chunk]:
        yield p.TextStart("a")
        yield p.TextDelta("a", "smile \ud83d")
        yield p.Data("data-beside", 1)
        yield p.TextDelta("a", "\ude00")
        yield p.TextDelta("a", " and half \ud83d")
        yield p.TextEnd("a")

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    assert await room.text(turn) == "smile 😀 and half \ufffd"
