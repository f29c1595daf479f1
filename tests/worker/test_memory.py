"""What an agent held is free when its turn is over, without waiting for the collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from agent_worker import CancelRequest, ToolCall, Turn, Worker
from agent_worker.agent.conversation import Conversation
from agent_worker.output.message import Output
from agent_worker.output.writer import TAIL_S, TurnWriter
from agent_worker.runtime.turn_run import TurnRun
from selfhost_transport.settings import Settings
from tests.processes import wait_until
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


class Data:
    """Something large."""


class Holder:
    """Makes data for agents, and knows what of it is still held."""

    def __init__(self) -> None:
        self._made: list[weakref.ref[Data]] = []

    def make(self) -> Data:
        data = Data()
        self._made.append(weakref.ref(data))
        return data

    @property
    def held(self) -> int:
        return sum(made() is not None for made in self._made)

    @property
    def made(self) -> int:
        return len(self._made)


HOLDER = Holder()


async def failing(turn: Turn) -> AsyncIterator[str]:
    data = HOLDER.make()
    yield "a "
    raise ValueError(type(data).__name__)


async def exiting(turn: Turn) -> AsyncIterator[str]:
    data = HOLDER.make()
    yield "a "
    raise SystemExit(data is None)


async def waiting(turn: Turn) -> AsyncIterator[str]:
    data = HOLDER.make()
    yield "a "
    await asyncio.sleep(60)
    yield str(data)


async def failing_tool(turn: Turn) -> None:
    def tool() -> None:
        data = HOLDER.make()
        raise ValueError(type(data).__name__)

    data = HOLDER.make()
    await turn.tool(ToolCall("x"), tool)
    del data


async def failing_source(turn: Turn) -> None:
    def source() -> Iterator[str]:
        data = HOLDER.make()
        yield "a "
        raise ValueError(type(data).__name__)

    await turn.pipe(source())


async def failing_chain(turn: Turn) -> None:
    data = HOLDER.make()
    try:
        raise KeyError(type(data).__name__)
    except KeyError as error:
        raise ExceptionGroup("both", [error, ValueError("x")]) from error


@pytest.mark.parametrize(
    "agent", [failing, exiting, waiting, failing_tool, failing_source, failing_chain], ids=lambda it: it.__name__
)  # fmt: skip
async def test_nothing_of_a_failed_or_cancelled_turn_stays(
    room: Room, settings: MakeSettings, running: Run, agent: Callable[[Turn], Any]
) -> None:
    before = HOLDER.made
    worker = Worker(settings())
    worker.agent("assistant")(agent)

    @worker.on_cancel("assistant")
    async def hook(request: CancelRequest) -> bool:
        data = HOLDER.make()
        raise ValueError(type(data).__name__)

    await running(worker)
    gc.collect()
    gc.disable()
    try:
        turns = [await room.send("go") for _ in range(5)]
        if agent is waiting:
            await wait_until(lambda: HOLDER.made == before + 5)
            for turn in turns:
                await room.cancel(turn)
        for turn in turns:
            assert (await room.ended(turn)).status == ("cancelled" if agent is waiting else "failed")
        await wait_until(lambda: worker.running == 0 and worker.statistics().unwinding == 0)
        assert HOLDER.made >= before + 5
        await wait_until(lambda: not HOLDER.held, 2, "everything is free")
    finally:
        gc.enable()


async def answering(turn: Turn) -> AsyncIterator[str]:
    yield "a "
    await asyncio.sleep(0)
    yield "b"


async def pausing(turn: Turn) -> None:
    await turn.pipe(["a"])
    # The end of the message is written by itself.
    await asyncio.sleep(2 * TAIL_S)
    await turn.pipe(["b"])


async def calling(turn: Turn) -> AsyncIterator[str]:
    await turn.tool(ToolCall("x"), lambda: "result")
    yield "a"


async def stalled(turn: Turn) -> AsyncIterator[str]:
    yield "a"
    await asyncio.Event().wait()


async def reading(turn: Turn) -> AsyncIterator[str]:
    yield str(len(await turn.messages()))


@pytest.mark.parametrize(
    "agent", [answering, pausing, calling, reading, failing, stalled], ids=lambda it: it.__name__
)
@pytest.mark.parametrize("window_ms", [0, 40])
async def test_nothing_of_an_attempt_stays_once_it_has_ended(
    room: Room, settings: MakeSettings, running: Run, agent: Callable[[Turn], Any], window_ms: int
) -> None:
    calls = 0

    def counted(turn: Turn) -> Any:
        nonlocal calls
        calls += 1
        return agent(turn)

    worker = Worker(settings(rollup_window_ms=window_ms))
    worker.agent("assistant", presence=True)(counted)
    await running(worker)
    gc.collect()
    gc.disable()
    try:
        turns = [await room.send("go") for _ in range(3)]
        if agent is stalled:
            await wait_until(lambda: calls == 3)
            for turn in turns:
                await room.cancel(turn)
        for turn in turns:
            await room.ended(turn)
        await wait_until(lambda: worker.running == 0 and worker.statistics().unwinding == 0)
        assert calls == 3
        await wait_until(lambda: not parts_of_attempts(), what="everything is free")
    finally:
        gc.enable()


def parts_of_attempts() -> list[object]:
    parts = (TurnRun, Turn, TurnWriter, Output, Conversation)
    return [found for found in gc.get_objects() if isinstance(found, parts)]
