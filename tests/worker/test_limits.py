"""Deadlines, silence, and what follows a crash (TRN-23, STR-14, REC-8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from agent_worker import Reasoning, ToolCall, Turn, Worker
from agent_worker.scripted.model import scripted
from selfhost_transport.settings import Settings
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from tests.processes import wait_until
from tests.promptness import Stopwatch, TooSlow, prompt
from tests.worker.people import People
from tests.worker.session import Room, header, numbered

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize(
    ("limits", "reported"), [({"deadline_s": 0.4}, "deadline"), ({"silence_s": 0.3}, "wrote nothing")]
)
async def test_trn_23_and_str_14_a_hanging_turn_ends_with_an_error(
    room: Room, settings: MakeSettings, running: Run, limits: dict[str, float], reported: str
) -> None:
    worker = Worker(settings())
    worker.agent("assistant", **limits)(scripted)  # type: ignore[arg-type]  # the keywords vary
    await running(worker)

    @prompt
    async def hanging() -> None:
        watch = Stopwatch()
        turn = await room.send("script: tokens=20 hang_at=5")
        assert (await room.ended(turn)).status == "failed"
        assert watch.seconds > 0.25
        watch.assert_below(1.5)
        end = (await room.of_turn(turn))[-1]
        assert reported in (header(end, h.ERROR_MESSAGE) or "")
        outputs = [(output.text, output.status) for output in await room.outputs(turn)]
        if outputs != [(numbered(5), "cancelled")]:
            raise TooSlow(f"the limit came before the fifth token: {outputs}")

    await hanging()


async def test_output_keeps_a_turn_from_being_silent(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings())
    worker.agent("assistant", silence_s=0.3)(scripted)
    await running(worker)
    turn = await room.send("script: tokens=40 rate=50")
    assert (await room.ended(turn)).status == "completed"


@pytest.mark.parametrize("rule", ["continue", "restart"])
async def test_rec_8_the_next_attempt_continues_or_starts_over(
    room: Room, settings: MakeSettings, running: Run, rule: str
) -> None:
    """The first attempt is given up without a word, as by a worker that is killed."""
    partials: list[str] = []
    stuck = asyncio.Event()
    worker = Worker(settings(rollup_window_ms=0))

    async def said(turn: Turn) -> AsyncIterator[str]:
        for number in range(10):
            if f"{number} " in turn.partial:
                continue
            if number == 5 and len(partials) == 1:
                stuck.set()
                await asyncio.Event().wait()
            yield f"{number} "

    @worker.agent("assistant", on_crash=rule)
    async def agent(turn: Turn) -> None:
        partials.append(turn.partial)
        await turn.pipe(said(turn))

    await running(worker)
    turn = await room.send("go")
    await stuck.wait()
    await expire_lease(room, turn)
    assert (await room.ended(turn)).status == "completed"
    assert partials == ["", numbered(5) if rule == "continue" else ""]
    # Readers see the second attempt only, and in it no token twice.
    parts = await People(room).parts(turn)
    assert "".join(part.text for part in parts if isinstance(part, ui.TextPart)) == numbered(10)


async def test_rec_8_what_is_shown_stays_shown_while_another_worker_continues(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(rollup_window_ms=0))
    stuck = asyncio.Event()

    @worker.agent("assistant", on_crash="continue")
    async def agent(turn: Turn) -> None:
        async with turn.message():
            if not turn.partial:
                await turn.pipe([Reasoning("hm "), "one ", "two "])
                stuck.set()
                await turn.tool(ToolCall("slow", call_id="c1"), asyncio.Event().wait)
            await turn.pipe(["three ", "four"])

    await running(worker)
    turn = await room.send("go")
    await stuck.wait()

    async def announced() -> bool:
        return "tool-input" in await room.names(turn)

    await wait_until(announced)
    await expire_lease(room, turn)
    shown = ""
    while (await room.record(turn)).status != "completed":
        text = text_of(await People(room).parts(turn))
        assert text.startswith(shown)
        shown = text
    parts = await People(room).parts(turn)
    assert text_of(parts) == "one two three four"
    # A second start is what takes the first attempt's output away in a reader.
    names = await room.names(turn)
    assert [names.count(name) for name in ("ai-step-start", "start", "finish", "ai-run-end")] == [1, 1, 1, 1]
    (call,) = [part for part in parts if isinstance(part, ui.ToolPart)]
    assert call.state == "output-error"
    assert {output.status for output in await room.outputs(turn)} == {"complete"}


def text_of(parts: Sequence[object]) -> str:
    return "".join(part.text for part in parts if isinstance(part, ui.TextPart))


@pytest.mark.parametrize("rule", ["continue", "restart"])
async def test_the_attempt_after_one_that_failed_starts_over_in_what_is_shown(
    room: Room, settings: MakeSettings, running: Run, rule: str
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant", on_crash=rule, retry_errors=True)
    async def agent(turn: Turn) -> AsyncIterator[str]:
        if not turn.partial:
            yield "one "
        if turn.attempt == 1:
            raise ValueError("once")
        yield "two"

    await running(worker)
    turn = await room.send("go")
    assert (await room.ended(turn)).status == "completed"
    assert text_of(await People(room).parts(turn)) == "one two"
    assert (await room.names(turn)).count("ai-step-start") == 2


async def test_a_partial_answer_that_was_whole_is_kept(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(rollup_window_ms=0))
    stuck = asyncio.Event()

    @worker.agent("assistant", on_crash="continue")
    async def agent(turn: Turn) -> None:
        if not turn.partial:
            await turn.pipe(["all of it"])
            stuck.set()
            await asyncio.Event().wait()

    await running(worker)
    turn = await room.send("go")
    await stuck.wait()
    await expire_lease(room, turn)
    await room.ended(turn)
    parts = await People(room).parts(turn)
    assert "".join(part.text for part in parts if isinstance(part, ui.TextPart)) == "all of it"


async def test_the_scripted_model_continues_where_it_was_lost(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    worker = Worker(settings(rollup_window_ms=0))
    worker.agent("assistant", on_crash="continue")(scripted)
    await running(worker)
    turn = await room.send("script: reasoning=2 tokens=40 rate=60")

    async def some() -> bool:
        return len(await room.text(turn)) > 10

    await wait_until(some)
    await expire_lease(room, turn)
    await room.ended(turn)
    parts = await People(room).parts(turn)
    assert "".join(part.text for part in parts if isinstance(part, ui.TextPart)) == numbered(40)


async def expire_lease(room: Room, turn: str) -> None:
    """As if the turn's worker had not renewed in time; the reaper finds it."""
    keys = room.turns.keys
    base = keys.base(bucket_of(room.name, keys.buckets))
    await room.turns.redis.command("ZADD", f"{base}leases", 1, f"{turn} {room.name}")
