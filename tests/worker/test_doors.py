"""Every way out of an agent gives a value the same fate, and nothing stays half sent."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_worker import AgentError, Reasoning, ToolCall, Turn, Worker
from selfhost_transport.settings import Settings
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from selfhost_transport.turns.values import MAX_DEPTH
from tests.worker.people import People
from tests.worker.session import Room, header

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]

HALF = "half \ud83d"


def deep() -> Any:
    value: Any = 1
    for _ in range(MAX_DEPTH + 5):
        value = {"a": value}
    return value


def circle() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


MENDED: dict[str, tuple[Any, Any]] = {
    "half": ([HALF], ["half \ufffd"]),
    "large": ([2**80], [str(2**80)]),
    "not-finite": ([float("nan")], [None]),
    "number-keys": ({1: "a"}, {"1": "a"}),
    "moment": ([datetime.date(2026, 1, 2)], ["2026-01-02"]),
    "decimal": ([decimal.Decimal("1.5")], ["1.5"]),
    "set": ({"b", "a"}, ["a", "b"]),
}
REFUSED: dict[str, Any] = {"bytes": [b"x"], "object": {"a": object()}, "deep": deep(), "circle": circle()}


async def result(turn: Turn, value: Any) -> None:
    await turn.tool(ToolCall("x"), lambda: value)


async def arguments(turn: Turn, value: Any) -> None:
    await turn.tool(ToolCall("x", value), lambda *values, **named: "ok")


async def offloaded(turn: Turn, value: Any) -> None:
    await turn.tool(ToolCall("x"), lambda: "x" * 50_000, offload=lambda kept: value, max_bytes=20_000)


async def data(turn: Turn, value: Any) -> None:
    await turn.pipe([p.Data("data-x", value)])


async def json_form(turn: Turn, value: Any) -> None:
    (await turn.pipe([{"type": "data-x", "data": value}])).raise_for_error()


async def metadata(turn: Turn, value: Any) -> None:
    await turn.pipe([p.MessageMetadata({"x": value}), "text"])


async def provider(turn: Turn, value: Any) -> None:
    await turn.pipe([p.ToolInputAvailable("c", "x", value), p.ToolOutputAvailable("c", value)])


DOORS = (result, arguments, offloaded, data, json_form, metadata, provider)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
async def test_a_value_has_its_fate(
    room: Room, settings: MakeSettings, running: Run, door: Callable[[Turn, Any], Awaitable[None]]
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def agent(turn: Turn) -> None:
        name = await turn.text()
        await door(turn, MENDED[name][0] if name in MENDED else REFUSED[name])

    await running(worker)
    turns = {name: await room.send(name) for name in (*MENDED, *REFUSED)}
    for name, turn in turns.items():
        status = (await room.ended(turn)).status
        parts = await People(room).parts(turn)
        states = {part.state for part in parts if isinstance(part, ui.ToolPart)}
        if name in MENDED:
            assert status == "completed", name
            assert states <= {"output-available"}
            assert written(parts, MENDED[name][1]) or door is metadata
        else:
            (end,) = [message for message in await room.of_turn(turn) if message.name == h.AI_RUN_END]
            assert (status, header(end, h.ERROR_CODE)) == ("failed", "40003"), name
            # A call that learned of has its error.
            assert states <= {"output-error"}


def written(parts: Any, value: Any) -> bool:
    for part in parts:
        if isinstance(part, ui.DataPart) and part.data == value:
            return True
        if isinstance(part, ui.ToolPart) and value in (part.input, part.output):
            return True
    return False


CHUNKS: dict[str, Any] = {
    "none": None,
    "number": 7,
    "bytes": b"x",
    "list": ["a"],
    "object": object(),
    "reasoning-of-bytes": Reasoning(b"x"),  # type: ignore[arg-type]
    "unknown-chunk": {"type": "no-such"},
    "no-type": {},
    "number-type": {"type": 7},
    "delta-of-nothing": p.TextDelta("never-opened", "x"),
    "delta-of-bytes": p.TextDelta("t", b"x"),  # type: ignore[arg-type]
    "end-of-nothing": p.TextEnd("never-opened"),
}


async def test_what_is_no_chunk_of_an_answer_fails_the_turn_by_name(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def agent(turn: Turn) -> Any:
        yield "before "
        yield CHUNKS[await turn.text()]

    await running(worker)
    turns = {name: await room.send(name) for name in CHUNKS}
    for name, turn in turns.items():
        assert (await room.ended(turn)).status == "failed"
        (end,) = [message for message in await room.of_turn(turn) if message.name == h.AI_RUN_END]
        assert header(end, h.ERROR_CODE) == "40003", (name, header(end, h.ERROR_MESSAGE))
        assert await room.text(turn) == "before "


@pytest.mark.parametrize("text", ["half \ud83d", "\x00 nul", "", "x" * 300_000])
async def test_texts_of_errors_notes_and_statuses(
    room: Room, settings: MakeSettings, running: Run, text: str
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant", presence=True)
    async def agent(turn: Turn) -> Any:
        yield text[:1000]
        await turn.report(text[:1000])
        turn.closing_note(text)
        raise AgentError(text)

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "failed"
    assert await room.terminals(turn) == ["error"]
