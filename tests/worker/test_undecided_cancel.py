"""A cancel is answered before its hook has decided: the answer does not call the turn cancelled (P2, CAN-3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agent_worker import CancelRequest, Turn, Worker
from gateway.commands.burst import Burst
from gateway.commands.cancel_voting import CancelVoting
from gateway.commands.commands import CancelTurns
from gateway.commands.continuations import Continuations
from gateway.commands.executor import Executor
from gateway.services import Services, connect_services
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.settings import Settings
from selfhost_transport.store.turn_store import CancelFilter, Scope
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.receipts import CancelReceipt, decode_cancel
from tests.processes import wait_until
from tests.worker.session import Room

Run = Callable[[Worker], Awaitable[Worker]]
MakeSettings = Callable[..., Settings]


@pytest.fixture
async def services(settings: MakeSettings) -> AsyncIterator[Services]:
    opened = await connect_services(settings())
    yield opened
    await opened.close()


class Requester:
    """Cancels as a gateway does that waits so many seconds for agents."""

    def __init__(self, services: Services, room: Room, wait_s: float = 0.2) -> None:
        sessions, turns = services.sessions, services.turns
        voting = CancelVoting(services.hub, sessions, wait_s=wait_s)
        continuations = Continuations(sessions, turns, services.inputs)
        stores = (sessions, turns, services.presence, services.annotations)
        self._executor = Executor(*stores, continuations, voting, services.metrics, Burst())
        self._session = room.name

    async def cancel(self, wanted: CancelFilter) -> CancelReceipt:
        message = Message(name=h.AI_CANCEL, client_id="alice", extras=h.make_extras({h.EVENT_ID: "c"}))
        done = await self._executor.run(CancelTurns(self._session, wanted, message))
        assert done.result.cancel is not None
        return done.result.cancel


async def test_an_undecided_turn_is_not_matched(
    room: Room, settings: MakeSettings, running: Run, services: Services
) -> None:
    worker, decide, more = Worker(settings(rollup_window_ms=0)), asyncio.Event(), asyncio.Event()

    @worker.agent("assistant")
    async def talker(turn: Turn) -> None:
        await turn.pipe(["first "])
        await more.wait()
        await turn.pipe(["after the answer"])
        await asyncio.Event().wait()

    @worker.on_cancel("assistant", grace_s=8)
    async def slow(request: CancelRequest) -> None:
        if request.turn.turn_id != quick:
            await decide.wait()

    quick = ""
    await running(worker)
    turn, quick = await room.send("go"), await room.send("go")

    async def text(of: str, wanted: str) -> None:
        async def shown() -> bool:
            return await room.text(of) == wanted

        await wait_until(shown)

    await text(turn, "first ")
    await text(quick, "first ")
    receipt = await Requester(services, room, wait_s=3.0).cancel(CancelFilter(Scope.ALL))
    assert (receipt.matched, receipt.undecided, receipt.denied) == ((quick,), (turn,), ())
    assert decode_cancel(receipt.to_wire()) == receipt
    # The cancel has not taken effect on it: its agent still writes.
    more.set()
    await wait_until(lambda: _wrote_more(room, turn))
    assert await room.text(quick) == "first "
    alone = await Requester(services, room).cancel(CancelFilter(Scope.TURN, turn))
    assert (alone.matched, alone.undecided, alone.denied) == ((), (turn,), ())
    decide.set()
    assert (await room.ended(turn)).status == "cancelled"


async def _wrote_more(room: Room, turn: str) -> bool:
    return "after the answer" in "".join(output.text for output in await room.outputs(turn))


@pytest.mark.parametrize("grace_s", [0, -1, 8.1, 30, float("nan")])
async def test_a_hook_may_not_take_longer_than_its_requester_waits(
    settings: MakeSettings, grace_s: float
) -> None:
    worker = Worker(settings())

    @worker.agent("assistant")
    async def idle(turn: Turn) -> None: ...

    async def hook(request: CancelRequest) -> None: ...

    with pytest.raises(InvalidArgument, match="grace_s"):
        worker.on_cancel("assistant", grace_s=grace_s)(hook)
