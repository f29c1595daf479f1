"""Agents that have a say in cancels (CAN-7 to CAN-11, INT-9)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agent_worker import CancelRequest, Turn, Worker
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import Settings
from selfhost_transport.store.turn_store import CancelFilter, Scope
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.tree import SessionTree
from selfhost_transport.wire.message import Message
from tests.processes import wait_until
from tests.promptness import Stopwatch, prompt
from tests.worker.people import People
from tests.worker.session import Room, header

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]
Hook = Callable[[CancelRequest], Awaitable[bool | None]]


class Talker:
    """An agent that goes on until it is asked to finish."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()

    async def __call__(self, turn: Turn) -> None:
        await turn.pipe(["first "])
        await self.finish.wait()
        await turn.pipe(["second"])


async def serve(running: Run, settings: MakeSettings, hook: Hook, **options: Any) -> Talker:
    worker, talker = Worker(settings(rollup_window_ms=0)), Talker()
    worker.agent("assistant")(talker)
    worker.on_cancel("assistant", **options)(hook)
    await running(worker)
    return talker


async def talking(room: Room, *turns: str) -> None:
    for turn in turns:

        async def said() -> bool:
            return bool(await room.text(turn))  # noqa: B023 - used before the next round

        await wait_until(said)


async def decisions(room: Room, turn: str) -> list[tuple[str | None, str | None]]:
    """Names and requesters of the entries that carry decisions."""
    names = (h.AI_CANCEL_DENIED, h.AI_CANCEL_ALLOWED)
    return [(m.name, header(m, h.CANCEL_CLIENT_ID)) for m in await room.of_turn(turn) if m.name in names]


async def until_denied(room: Room, turn: str) -> None:
    async def denied() -> bool:
        return bool(await decisions(room, turn))

    await wait_until(denied)


async def test_can_7_only_the_owner_may_cancel(room: Room, settings: MakeSettings, running: Run) -> None:
    asked: list[CancelRequest] = []

    async def hook(request: CancelRequest) -> bool:
        asked.append(request)
        return request.requester == request.turn.owner

    talker = await serve(running, settings, hook)
    turn = await room.send("go", client_id="alice")
    await talking(room, turn)
    reply = await room.cancel(turn, client_id="mallory")
    assert (reply.matched, reply.asked) == ((turn,), (turn,))
    await until_denied(room, turn)
    assert await decisions(room, turn) == [(h.AI_CANCEL_DENIED, "mallory")]
    assert (await room.record(turn)).status == "active"
    await room.cancel(turn, client_id="alice")
    assert (await room.ended(turn)).status == "cancelled"
    assert [(r.requester, r.filter, dict(r.matched)) for r in asked] == [
        (who, CancelFilter(Scope.TURN, turn), {turn: "alice"}) for who in ("mallory", "alice")
    ]
    assert await room.text(turn) == "first "
    talker.finish.set()


async def test_a_denied_turn_goes_on_to_its_end(room: Room, settings: MakeSettings, running: Run) -> None:
    async def hook(request: CancelRequest) -> bool:
        return False

    talker = await serve(running, settings, hook)
    turn = await room.send("go")
    await talking(room, turn)
    await room.cancel(turn)
    talker.finish.set()
    assert (await room.ended(turn)).status == "completed"
    assert "".join(output.text for output in await room.outputs(turn)) == "first second"
    assert await decisions(room, turn) == [(h.AI_CANCEL_DENIED, "alice")]


async def test_what_was_asked_for_is_decided_before_the_turn_may_complete(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    decide = asyncio.Event()

    async def hook(request: CancelRequest) -> None:
        await decide.wait()

    talker = await serve(running, settings, hook)
    turn = await room.send("go")
    await talking(room, turn)
    await room.cancel(turn)
    talker.finish.set()

    async def wrote_on() -> bool:
        return len(await room.outputs(turn)) == 2

    await wait_until(wrote_on)
    decide.set()
    assert (await room.ended(turn)).status == "cancelled"


@pytest.mark.parametrize(("undecided", "status"), [("allow", "cancelled"), ("deny", "active")])
async def test_can_9_a_hook_that_raises_follows_the_declared_policy(
    room: Room, settings: MakeSettings, running: Run, undecided: str, status: str
) -> None:
    async def hook(request: CancelRequest) -> bool:
        if await request.turn.text() == "good":
            return True
        raise RuntimeError("the hook is broken")

    await serve(running, settings, hook, undecided=undecided)
    bad, good = await room.send("bad"), await room.send("good")
    await talking(room, bad, good)
    message = h.make_extras({h.CANCEL_ALL: "true"})
    await room.turns.cancels.cancel(
        room.name, CancelFilter(Scope.ALL), Message(name=h.AI_CANCEL, client_id="eve", extras=message)
    )
    assert (await room.ended(good)).status == "cancelled"
    await until_denied(room, bad)

    async def settled() -> bool:
        return (await room.record(bad)).status == status

    await wait_until(settled)
    decision = next(m for m in await room.of_turn(bad) if m.name in (h.AI_CANCEL_DENIED, h.AI_CANCEL_ALLOWED))
    assert header(decision, h.ERROR_CODE) == ("40300" if undecided == "deny" else "104002")


async def test_can_10_and_int_9_the_closing_note(room: Room, settings: MakeSettings, running: Run) -> None:
    async def hook(request: CancelRequest) -> None:
        request.closing_note("[cancelled]")

    await serve(running, settings, hook)
    turn = await room.send("go")
    await talking(room, turn)
    cancelled = await room.cancel(turn)
    record = await room.ended(turn)
    assert record.status == "cancelled"
    assert record.cancel_position is not None and record.cancel_position > cancelled.position
    texts = [output.text for output in await room.outputs(turn)]
    assert texts == ["first ", "[cancelled]"]
    node = (await People(room).tree()).run_node(turn)
    assert node is not None
    note = list(node.messages.values())[-1].snapshot().message
    assert (note.text, note.metadata) == ("[cancelled]", {"note": True})
    # Behind the cancel stands only the note, and nothing behind the terminal.
    content = await room.content_after(turn, record.cancel_position)
    assert {getattr(entry, "data", "") for entry in content} <= {"", "[cancelled]"}
    assert (await room.names(turn))[-4:] == ["start", "text", "ai-step-end", "ai-run-end"]
    assert await room.content_after(turn, record.terminal or cancelled.position) == []
    # INT-9: every reader sees that it is about to be cancelled, then that it is.
    tree = SessionTree(room.name)
    seen: list[TurnStatus] = []
    for message in await room.history():
        tree.apply(message)
        info = tree.turn(turn)
        if info is not None and (not seen or seen[-1] != info.shown_status):
            seen.append(info.shown_status)
    assert seen[-2:] == [TurnStatus.CANCELLING, TurnStatus.CANCELLED]


async def test_can_11_a_hook_cannot_hold_the_turn_open(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    async def hook(request: CancelRequest) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)

    await serve(running, settings, hook, grace_s=0.2)

    @prompt
    async def cancelled() -> None:
        turn = await room.send("go")
        await talking(room, turn)
        watch = Stopwatch()
        await room.cancel(turn)
        assert (await room.ended(turn)).status == "cancelled"
        watch.assert_below(1.2)

    await cancelled()


async def test_int_9_a_denied_cancel_is_no_longer_shown(
    room: Room, settings: MakeSettings, running: Run
) -> None:
    async def hook(request: CancelRequest) -> bool:
        return False

    talker = await serve(running, settings, hook)
    turn = await room.send("go")
    await talking(room, turn)
    await room.cancel(turn)
    await until_denied(room, turn)
    history = await room.history()
    for order in (history, history[::-1]):
        tree = SessionTree(room.name)
        for message in order:
            tree.apply(message)
        info = tree.turn(turn)
        assert info is not None and not info.cancel_requested and info.shown_status is TurnStatus.ACTIVE
    talker.finish.set()


async def test_a_hook_for_no_agent(settings: MakeSettings) -> None:
    with pytest.raises(InvalidArgument):
        Worker(settings()).on_cancel("no-one")
