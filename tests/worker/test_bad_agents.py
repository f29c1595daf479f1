"""User code that misbehaves: its own turn ends, with a true reason; the worker lives, and its neighbours stream on (P12)."""

from __future__ import annotations

import asyncio
import gc
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from agent_worker import Worker
from selfhost_transport.settings import Settings
from selfhost_transport.store.history import Query
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from tests.processes import Stack
from tests.worker import bad_agents as bad
from tests.worker.session import Room, header, run_of

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]
Serve = Callable[[], Awaitable[Callable[[], bool]]]

# What the terminal says, for those whose own words are fit for people.
REPORTED = {
    "group-that-tells": "reported in a group",
    "half-a-character": "half \ufffd",
    "long-message": "x" * 4_000,
    "rate-limited": "slow down",
    # What a store says is for operators.
    "store": "the session store is unavailable; try again",
    "bytes-message": "b'raw'",
    "no-message": "None",
}
# An iterator says with it that it ends; a task group takes no notice of a child that was cancelled.
HARMLESS = {("plain-iterator", "stop-iteration"), ("task-group", "cancelled")}
# asyncio's task group says these as a group of its own.
WRAPPED = {("task-group", "odd-base"), ("task-group", "group-of-exits")}
EXITS = ("system-exit", "system-exit-text", "keyboard-interrupt", "odd-base", "group-of-exits")


@pytest.fixture(params=["embedded", "alone"])
def serve(request: pytest.FixtureRequest, settings: MakeSettings, running: Run, stack: Stack) -> Serve:
    """Starts the worker in this process, or in one of its own; the answer says whether it lives."""

    async def embedded() -> Callable[[], bool]:
        worker = await running(bad.bad_worker(settings()))
        return lambda: not worker.stopped

    async def alone() -> Callable[[], bool]:
        process = await stack.worker("tests.worker.bad_agents:alone")
        return lambda: process.returncode is None

    return embedded if request.param == "embedded" else alone


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_whatever_user_code_raises_ends_its_own_turn(room: Room, serve: Serve) -> None:
    lives = await serve()
    sent: dict[str, tuple[str, str]] = {}
    async with streaming_beside(room):
        for where in bad.FAILING | bad.FINE:
            # A few at a time: many that fail at once are much to log at once.
            for ways in few(bad.WAYS):
                turns = {await room.send(f"{where} {way}", agent="bad"): (where, way) for way in ways}
                sent |= turns
                for turn, how in turns.items():
                    record = await room.ended(turn)
                    assert (record.status, record.attempts) == (expected_status(*how), 1), how
    # Outside of the measurement: it is the test that reads.
    terminals = await terminals_of(room)
    for turn, how in sent.items():
        assert len(terminals[turn]) == 1, how
        assert_true_reason(terminals[turn][0], *how)
    assert lives()


async def test_a_process_of_its_own_outlives_a_stopped_loop_and_ends_on_a_signal(
    room: Room, stack: Stack
) -> None:
    process = await stack.worker("tests.worker.bad_agents:alone")
    async with streaming_beside(room):
        for way in ("stop", "system-exit", "keyboard-interrupt", "odd-base", "plain"):
            turn = await room.send(f"stop-loop {way}", agent="bad")
            record = await room.ended(turn)
            assert (record.status, record.attempts) == ("completed", 1), way
        endless = [
            await room.send(f"endless {way}", agent="bad") for way in ("task", "tool", "thread", "clean-up")
        ]
        await said(room, *endless)
        for turn in endless[1:]:
            await room.cancel(turn)
        # Hung code of turns that are over keeps none of the others from running.
        quick = [await room.send("tool plain", agent="bad") for _ in range(5)]
        for turn in quick:
            assert (await room.ended(turn)).status == "failed"
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 15) == 0


def few(ways: Sequence[str], number: int = 8) -> list[Sequence[str]]:
    return [ways[at : at + number] for at in range(0, len(ways), number)]


def expected_status(where: str, way: str) -> str:
    return "completed" if where in bad.FINE or (where, way) in HARMLESS else "failed"


async def test_what_is_raised_while_a_turn_is_cancelled_changes_nothing(room: Room, serve: Serve) -> None:
    lives = await serve()
    async with streaming_beside(room):
        for where in bad.CANCELLED:
            for ways in few(bad.WAYS):
                turns = [
                    await room.send(
                        f"{where} {way}", agent=f"hooked-{way}" if where == "plain-hook" else "bad"
                    )
                    for way in ways
                ]
                await said(room, *turns)
                for turn in turns:
                    await room.cancel(turn)
                for turn in turns:
                    assert (await room.ended(turn)).status == "cancelled"
    terminals = await terminals_of(room)
    assert {len(ends) for ends in terminals.values()} == {1}
    assert lives()


@asynccontextmanager
async def streaming_beside(room: Room) -> AsyncIterator[None]:
    """A turn that streams all the while; it is never kept waiting for 100 ms, by `bad_agents.Clock`."""
    neighbour = await room.send("", agent="neighbour")
    await said(room, neighbour)
    # A full collection of what all tests have left in this process takes longer than any pause that is looked for.
    gc.disable()
    await longest_pause(room)
    try:
        yield
    finally:
        gc.enable()
    assert await longest_pause(room) < bad.LIMIT_S
    assert (await room.record(neighbour)).status == "active"
    assert (await room.record(neighbour)).attempts == 1
    await room.cancel(neighbour)
    await room.ended(neighbour)


async def longest_pause(room: Room) -> float:
    turn = await room.send("", agent="gap")
    await room.ended(turn)
    return float(await room.text(turn))


async def said(room: Room, *turns: str) -> None:
    """Wait until each of the turns, which are the newest, has written something; seldom looks, and at little."""
    while True:
        page = await room.sessions.history.page(room.name, Query(limit=8 * len(turns)))
        if set(turns) <= {run_of(message) for message in page.messages if message.name == h.AI_OUTPUT}:
            return
        await asyncio.sleep(0.05)


async def terminals_of(room: Room) -> dict[str, list[Message]]:
    """By turn."""
    found: dict[str, list[Message]] = defaultdict(list)
    for message in await room.history():
        if message.name == h.AI_RUN_END:
            found[str(run_of(message))].append(message)
    return found


def assert_true_reason(end: Message, where: str, way: str) -> None:
    if expected_status(where, way) == "completed":
        assert header(end, h.RUN_REASON) == "complete"
        return
    assert header(end, h.RUN_REASON) == "error"
    code, message = header(end, h.ERROR_CODE), header(end, h.ERROR_MESSAGE)
    assert code is not None and message
    if where in ("cleanup", "generator-cleanup"):
        # Why the source failed comes first.
        assert "would have stopped" not in message and message != REPORTED.get(way)
        return
    if way in EXITS and (where, way) not in WRAPPED:
        assert "would have stopped the process" in message, (where, way, message)
    if way in REPORTED:
        assert message == REPORTED[way], (where, way)
    if way == "rate-limited":
        assert code == "42900"
