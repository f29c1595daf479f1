"""A codec of the application is user code too: wherever it fails, the turn has its one terminal, and the worker lives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from agent_worker import Turn, Worker
from selfhost_transport.settings import Settings
from selfhost_transport.turns.codecs import UIMessageCodec
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]

METHODS = (
    "encoder",
    "chunk_from_json",
    "decode_stream_start",
    "decode_output",
    "message",
    "name",
    "input_form",
)


def breaking(method: str, error: type[BaseException]) -> UIMessageCodec:
    def fail(self: Any, *values: Any) -> Any:
        raise error("from a codec")

    is_property = isinstance(getattr(UIMessageCodec, method), property)
    broken = type("Broken", (UIMessageCodec,), {method: property(fail) if is_property else fail})
    made: UIMessageCodec = broken()
    return made


@pytest.mark.parametrize("error", [ValueError, SystemExit], ids=["error", "exit"])
async def test_a_codec_that_fails_ends_its_turns_only(
    room: Room, settings: MakeSettings, running: Run, error: type[BaseException]
) -> None:
    worker = Worker(settings())

    async def agent(turn: Turn) -> AsyncIterator[Any]:
        await turn.messages()
        yield "text"
        yield {"type": "data-x", "data": 1}

    for method in METHODS:
        worker.agent(method, codec=breaking(method, error))(agent)
    worker.agent("fine")(agent)
    await running(worker)
    before = await room.send("go", agent="fine")
    await room.ended(before)
    turns = {method: await room.send("go", agent=method, parent=None) for method in METHODS}
    for method, turn in turns.items():
        status = (await room.ended(turn)).status
        assert len(await room.terminals(turn)) == 1
        if method in ("encoder", "chunk_from_json"):
            assert status == "failed"
    after = await room.send("go", agent="fine")
    assert (await room.ended(after)).status == "completed"
    assert not worker.stopped


async def test_a_codec_that_fails_before_the_agent_is_called(
    room: Room, settings: MakeSettings, running: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime's own work on a turn fails."""
    worker = Worker(settings())

    @worker.agent("assistant")
    async def agent(turn: Turn) -> AsyncIterator[str]:
        yield "never"

    await running(worker)

    async def fail(self: Any) -> None:
        raise SystemExit("in the runtime")

    monkeypatch.setattr("agent_worker.agent.conversation.Conversation.choose_codec", fail)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "failed"
    assert await room.terminals(turn) == ["error"]
    assert not worker.stopped
