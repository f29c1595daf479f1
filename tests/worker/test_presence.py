"""What agents show of themselves, and how many there are (PRE-2, PRE-4, PRE-9, PRE-11, PRE-14)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

from agent_worker import Turn, Worker
from selfhost_transport.settings import Settings
from selfhost_transport.store.entries import Appended, PresenceChanged
from selfhost_transport.store.fleet import Fleet
from selfhost_transport.store.presence import PresenceStore
from selfhost_transport.wire.actions import PresenceAction
from tests.processes import wait_until
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


def store(room: Room) -> PresenceStore:
    return PresenceStore(room.turns.redis, room.turns.keys)


async def reported(room: Room) -> list[tuple[PresenceAction | None, str]]:
    """What the session learned of its agent, in order."""
    return [
        (event.action, json.loads(event.data or "{}").get("status", ""))
        for entry in await room.log()
        if isinstance(entry, PresenceChanged)
        for event in entry.presence
    ]


async def test_pre_2_pre_4_and_pre_14_thinking_streaming_idle_offline(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(rollup_window_ms=0))

    @worker.agent("assistant", presence=True)
    async def agent(turn: Turn) -> None:
        await turn.pipe(["one ", "two "])

    await running(worker)
    turn = await room.send("go")
    await room.ended(turn)
    steps = [
        (PresenceAction.ENTER, "thinking"),
        (PresenceAction.UPDATE, "streaming"),
        (PresenceAction.UPDATE, "idle"),
    ]

    async def complete() -> bool:
        return await reported(room) == steps

    await wait_until(complete)
    log = await room.log()
    streaming = [entry for entry in log if isinstance(entry, PresenceChanged)][1]
    first_token = next(entry for entry in log if isinstance(entry, Appended) and entry.data)
    assert streaming.position < first_token.position
    (member,) = await store(room).members(room.name)
    assert member.client_id == "assistant"
    worker.stop()

    async def gone() -> bool:
        return await store(room).count(room.name) == 0

    await wait_until(gone)


async def test_pre_9_a_report_of_its_own_beside_what_is_observed(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    reported, go_on = asyncio.Event(), asyncio.Event()

    @worker.agent("assistant", presence=True)
    async def agent(turn: Turn) -> None:
        await turn.report("idle")
        reported.set()
        await go_on.wait()

    await running(worker)
    turn = await room.send("go")
    await reported.wait()
    (member,) = await store(room).members(room.name)
    assert json.loads(member.data or "") == {"status": "idle"}
    assert (await room.record(turn)).status == "active"
    go_on.set()
    await room.ended(turn)


async def test_pre_11_how_many_workers_there_are(room: Room, settings: MakeSettings, running: Run) -> None:
    fleet = Fleet(room.turns.redis, room.turns.keys)
    assert await fleet.size("assistant") == 0
    workers = [Worker(settings(), worker_id=f"w{number}") for number in range(2)]
    for worker in workers:
        worker.agent("assistant")(_idle)
        await running(worker)

    async def two() -> bool:
        return await fleet.size("assistant") == 2

    await wait_until(two)
    workers[0].stop()

    async def one() -> bool:
        return await fleet.size("assistant") == 1

    await wait_until(one)
    # One that dies is not counted any more once its time is over.
    assert await fleet.announce("assistant", "died", 1) == 2
    await wait_until(one)


async def _idle(turn: Turn) -> None:
    """Answers nothing."""


async def test_a_worker_that_works_once(room: Room, settings: MakeSettings, running: Run) -> None:
    turns = [await room.send("go") for _ in range(5)]
    worker = Worker(settings(concurrency=2), once=True)
    worker.agent("assistant")(_idle)
    await running(worker)
    await wait_until(lambda: worker.stopped)
    assert {(await room.record(turn)).status for turn in turns} == {"completed"}
