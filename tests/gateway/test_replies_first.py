"""What an acknowledgement waits for before it leaves a socket."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from gateway.commands.commands import CancelTurns, ChangePresence, Done, Publish
from gateway.realtime.replies_first import wait_for_entries
from gateway.realtime.watched import Watched
from gateway.services import connect_services
from selfhost_transport.settings import load_settings
from selfhost_transport.turns.commands import CancelFilter, Scope
from selfhost_transport.turns.headers import AI_CANCEL
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.frame import AckResult
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position

AT = Position(1000, 0)
EPOCH = "epoch"


class Channel:
    """A channel of a socket, as far as an acknowledgement looks at it: its own feed and subscription."""

    def __init__(self, epoch: str = EPOCH) -> None:
        self.feed = self.subscription = self
        self.epoch = epoch
        self.hurried = False
        self.fanned_out, self.written = asyncio.Event(), asyncio.Event()

    async def until_fanned_out(self, position: Position) -> None:
        assert position == AT
        await self.fanned_out.wait()

    def clear(self, position: Position) -> None:
        self.hurried = True

    async def caught_up(self, position: Position) -> None:
        assert position == AT
        await self.written.wait()


def begin(done: Done, *channels: Channel) -> asyncio.Task[None]:
    return asyncio.create_task(wait_for_entries(done, cast("tuple[Watched, ...]", channels)))


async def is_done(task: asyncio.Task[None]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


@pytest.mark.parametrize("of_presence", [True, False])
async def test_it_waits_until_what_it_speaks_of_has_been_written(of_presence: bool) -> None:
    done = Done(AckResult([]), AT, EPOCH, reply_after=AT, hurries=not of_presence)
    channel, other = Channel(), Channel("another session's")
    waiting = begin(done, other, channel)
    assert not await is_done(waiting)
    channel.fanned_out.set()
    assert not await is_done(waiting)
    channel.written.set()
    assert await is_done(waiting)
    # What is held back behind the reply to a send stays there for a change of presence, and goes before a cancel's.
    assert channel.hurried is not of_presence


async def test_other_acknowledgements_wait_for_nothing() -> None:
    assert await is_done(begin(Done(AckResult([]), AT, EPOCH), Channel()))


async def test_what_each_reply_waits_for(redis_url: str, redis_prefix: str) -> None:
    services = await connect_services(load_settings(redis=redis_url, redis_prefix=redis_prefix))
    try:
        enter = PresenceMessage(PresenceAction.ENTER, client_id="ann", id="c:0:0")
        holder = services.holder("c", 1000)
        entered = await services.executor.run(ChangePresence("room", holder, (enter,), "once"))
        # Who has entered finds itself among the members; entries that wait for other replies are not hurried for that.
        assert (entered.reply_after, entered.hurries) == (entered.position, False)
        assert entered.position > Position.ZERO
        published = await services.executor.run(Publish("room", (Message(name="note", data="x"),)))
        assert (published.reply_after, published.hurries) == (None, False)
        cancel = Message(name=AI_CANCEL, client_id="ann")
        nothing = await services.executor.run(CancelTurns("room", CancelFilter(Scope.TURN, "none"), cancel))
        assert nothing.hurries and nothing.reply_after == nothing.position
    finally:
        await services.close()
