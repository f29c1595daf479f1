"""What an acknowledgement waits for before it leaves a socket."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from gateway.commands.commands import Done
from gateway.realtime.replies_first import wait_for_entries
from gateway.realtime.watched import Watched
from selfhost_transport.wire.frame import AckResult
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
