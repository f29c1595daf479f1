"""What has to leave a socket before what: replies before the turns they caused, entries before a reply that speaks of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from typing import Final

from gateway.commands.commands import Done, woken_session
from gateway.fanout.subscription import Subscription
from gateway.realtime.connection import Connection
from gateway.realtime.effects import Command
from gateway.realtime.watched import Watched

ENTRIES_FIRST_S: Final = 1.0


class RepliesFirst:
    """Subscriptions of one connection that wait for replies."""

    __slots__ = ("_core", "_paused")

    def __init__(self, core: Connection) -> None:
        self._core = core
        # By the ticket of the reply, oldest first. There while something is in it.
        self._paused: deque[tuple[int, Subscription]] | None = None

    def hold_back(self, command: Command, channels: Iterable[Watched]) -> None:
        """Keep a session's entries back until its turn's input is acknowledged.

        A fast agent may have answered before the ACK is in flight, and the SDK's ChatTransport receives the answer
        only from then on.
        """
        session = woken_session(command.operation)
        if session is None:
            return
        for watched in channels:
            if watched.session == session and watched.feed is not None:
                watched.subscription.pause()
                self._paused = self._paused or deque()
                self._paused.append((command.ticket, watched.subscription))

    def proceed(self, done: Done | None = None) -> None:
        """Let entries follow the answers that have left; behind further ones that are owed, those up to `done`."""
        while self._paused and not self._core.has_pending(self._paused[0][0]):
            _, subscription = self._paused.popleft()
            if done is not None and done.epoch == subscription.epoch:
                subscription.clear(done.position)
            subscription.proceed()
        self._paused = self._paused or None


async def wait_for_entries(done: Done, channels: Iterable[Watched]) -> None:
    """Wait, bounded, until everything before a cancel (P2), or a change of presence itself, has been written to this socket."""
    until = done.reply_after
    if until is None:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(ENTRIES_FIRST_S):
            for watched in list(channels):
                if watched.feed is not None and watched.feed.epoch == done.epoch:
                    await watched.feed.until_fanned_out(until)
                    if done.hurries:
                        watched.subscription.clear(until)
                    await watched.subscription.caught_up(until)
