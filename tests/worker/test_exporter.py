"""The hook per ended turn: whole messages, at least once, safe to repeat (HYD-1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agent_worker import ToolCall, Turn, Worker
from agent_worker.scripted.model import scripted
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.exporter import EndedTurn, TurnExporter
from selfhost_transport.settings import Settings
from selfhost_transport.turns import ui
from selfhost_transport.turns.status import TurnStatus
from tests.processes import wait_until
from tests.worker.exporting import exporting
from tests.worker.people import People
from tests.worker.session import Room, numbered

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


async def test_hyd_1_whole_messages_across_suspend_and_resume(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    async def asking(turn: Turn) -> None:
        if turn.invocation == 0:
            await turn.pipe(["let me ask. "])
            await turn.suspend([ToolCall("pick", {}, "call-1")])
        await turn.pipe(["thank you."])

    worker = Worker(settings())
    worker.agent("assistant")(asking)
    await running(worker)
    exported: asyncio.Queue[EndedTurn] = asyncio.Queue()
    async with exporting(TurnExporter(settings()), exported.put):
        people = People(room)
        turn_id = await room.send("what now?")
        await people.suspended(turn_id)
        assert exported.empty()
        await people.result(turn_id, "the second", client_id="bob")
        ended = await asyncio.wait_for(exported.get(), 10)
    assert (ended.session, ended.turn_id, ended.status) == (room.name, turn_id, TurnStatus.COMPLETED)
    assert (ended.owner, ended.agent, ended.delivery, ended.truncated) == ("alice", "assistant", 1, False)
    tree = await people.tree()
    node = tree.run_node(turn_id)
    assert node is not None
    assert list(ended.messages[1:]) == [state.snapshot() for state in node.messages.values()]
    assert [said.message.text for said in ended.messages] == ["what now?", "let me ask. ", "", "thank you."]
    parts = [part for said in ended.messages for part in said.message.parts if isinstance(part, ui.ToolPart)]
    assert [(part.state, part.output) for part in parts] == [("output-available", "the second")]
    assert ended.to_json()["messages"][0]["message"]["parts"] == [{"type": "text", "text": "what now?"}]


async def test_hyd_1_only_the_last_attempt_and_only_this_turn(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(retry_errors=True))
    worker.agent("assistant")(scripted)
    await running(worker)
    exported: list[EndedTurn] = []

    async def keep(turn: EndedTurn) -> None:
        exported.append(turn)

    async with exporting(TurnExporter(settings()), keep):
        long = await room.send("script: tokens=60 rate=100")
        failing = await room.send("script: tokens=20 fail_at=10")
        await wait_until(lambda: len(exported) == 2, 10, "both turns")
    texts = {turn.turn_id: [said.message.text for said in turn.messages][1:] for turn in exported}
    assert texts == {failing: [numbered(20)], long: [numbered(60)]}
    positions = [turn.position for turn in exported]
    assert positions == sorted(positions)


async def test_hyd_1_a_function_that_raises_is_called_again_with_the_same_ids(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    worker.agent("assistant")(scripted)
    await running(worker)
    calls: list[EndedTurn] = []

    async def broken_twice(turn: EndedTurn) -> None:
        calls.append(turn)
        if len(calls) <= 2:
            raise RuntimeError("the database is away")

    async with exporting(TurnExporter(settings(), lease_s=0.1), broken_twice) as exporter:
        await room.send("script: tokens=3")
        await wait_until(lambda: exporter.statistics().exported == 1, 10, "the export")
    assert [turn.delivery for turn in calls] == [1, 2, 3]
    assert exporter.statistics().failed == 2
    assert (
        len({(turn.turn_id, tuple(said.codec_message_id for said in turn.messages)) for turn in calls}) == 1
    )


async def test_hyd_1_a_slow_function_is_not_called_twice(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    worker.agent("assistant")(scripted)
    await running(worker)
    calls: list[str] = []

    async def slow(turn: EndedTurn) -> None:
        calls.append(turn.turn_id)
        await asyncio.sleep(1.0)  # several leases

    first, second = (TurnExporter(settings(), lease_s=0.2) for _ in range(2))
    async with exporting(first, slow), exporting(second, slow):
        turn_id = await room.send("script: tokens=3")
        both = (first, second)
        await wait_until(lambda: sum(each.statistics().exported for each in both) == 1, 10, "the export")
    assert calls == [turn_id]


async def test_once_exports_what_waits_and_reports_failures(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    async def nothing(turn: EndedTurn) -> None:
        raise AssertionError("nothing has ended yet")

    await TurnExporter(settings()).run(nothing, once=True)
    cancelled = await room.send("never taken")
    await room.cancel(cancelled)

    async def broken(turn: EndedTurn) -> None:
        raise RuntimeError("the database is away")

    with pytest.raises(RuntimeError, match="away"):
        await TurnExporter(settings()).run(broken, once=True)
    exported: list[EndedTurn] = []

    async def keep(turn: EndedTurn) -> None:
        exported.append(turn)

    again = TurnExporter(settings(), lease_s=0.001)
    await again.run(keep, once=True)
    assert [(turn.turn_id, turn.status) for turn in exported] == [(cancelled, TurnStatus.CANCELLED)]
    assert [said.message.text for said in exported[0].messages] == ["never taken"]


def test_numbers_out_of_range_are_refused(settings: MakeSettings) -> None:
    with pytest.raises(InvalidArgument):
        TurnExporter(settings(), lease_s=0)
    with pytest.raises(InvalidArgument):
        TurnExporter(settings(), limit=0)
