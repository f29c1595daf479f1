"""Which queues may hold work, and taking it from them as long as there is room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable

from selfhost_transport.errors import TransportError

logger = logging.getLogger(__name__)

TAKES_AT_ONCE = 64
# Of one queue. Takes travel together, but a busy process has an answer only after 100 ms: one at a time, a backlog
# would not shrink by more than ten turns a second.
_MOST_OF_ONE = 16
_PAUSE_S = 0.2
_LOOK_FOR_ROOM_S = 0.2
"""How often it is asked whether there is room, while turns wait and none of this process ends."""

Pair = tuple[int, str]
"""A bucket and an agent's name: one queue."""

Take = Callable[[int, str, bool], Awaitable[bool]]
"""Tries to take one turn of a queue and start it; the last says whether there is room for another one after that.

False: the queue is empty now, and its next turn calls this process.
"""
CallAgain = Callable[[int, str], Awaitable[int]]
"""Has other processes called for what waits in a queue; returns how much that is."""


async def _no_other(bucket: int, agent: str) -> int:
    return 0


class QueueReader:
    """Takes turns from every queue that may hold some, while `room()` says how many more can run.

    A queue is dirty from a call, a start or a reconnect until a take leaves it empty. While takes leave more in it,
    twice as many are tried at once. A call that others may not have got is forwarded where there is no room.
    """

    def __init__(
        self,
        pairs: Iterable[Pair],
        take: Take,
        room: Callable[[], int],
        found_empty: Callable[[], None] = lambda: None,
        call_again: CallAgain = _no_other,
    ) -> None:
        self._pairs = tuple(pairs)
        self._take = take
        self._room = room
        # Called whenever every queue was found empty.
        self._found_empty = found_empty
        # How many takes to try at once; the queue that waited longest comes first.
        self._dirty: dict[Pair, int] = dict.fromkeys(self._pairs, 1)
        self._changed = asyncio.Event()
        self._stopping = False
        self._call_again = call_again
        # Queues that this process was called for, and few others; and those whose call is to be forwarded.
        self._called: set[Pair] = set()
        self._to_forward: set[Pair] = set()
        self._has_to_forward = asyncio.Event()

    def note_call(self, bucket: int, agent: str, *, to_few: bool = False) -> None:
        """This process was called: something was put into a queue. `to_few`: few others, or none, were called for it."""
        pair = (bucket, agent)
        self._dirty.setdefault(pair, 1)
        if to_few:
            self._called.add(pair)
        if self._stopping:
            self._forward_calls()
        self._changed.set()

    def look_into_all(self) -> None:
        """Calls may have been missed: every queue may hold turns."""
        self._dirty = {**self._dirty, **dict.fromkeys(self._pairs, 1)}
        self._changed.set()

    def room_made(self) -> None:
        """A running turn has ended."""
        if self._dirty:
            self._changed.set()

    def stop(self) -> None:
        """Take nothing more; `work` returns when what was asked for has arrived."""
        self._stopping = True
        self._forward_calls()
        self._changed.set()

    async def work(self) -> None:
        """Take until stopped. A take is never cancelled: a turn that was taken must be started."""
        self._changed.set()
        while not self._stopping:
            await self._something_changed()
            self._changed.clear()
            while not self._stopping and (takes := self._next_takes()):
                await self._take_from(takes)
            self._forward_calls()
            if not self._dirty:
                self._found_empty()

    async def forward(self) -> None:
        """Forward calls until cancelled: others come for what this process has no room for, or is too late to take."""
        while True:
            await self._has_to_forward.wait()
            self._has_to_forward.clear()
            pairs, self._to_forward = self._to_forward, set()
            for reply in await asyncio.gather(
                *(self._call_again(*pair) for pair in pairs), return_exceptions=True
            ):
                # A store that is away is looked into again by all, once it is back.
                if isinstance(reply, BaseException) and not isinstance(reply, TransportError):
                    raise reply

    def _forward_calls(self) -> None:
        """What is still to be looked at waits for room."""
        if self._called:
            self._to_forward |= self._called
            self._called.clear()
            self._has_to_forward.set()

    async def _something_changed(self) -> None:
        if not self._dirty:
            await self._changed.wait()
            return
        # Room may come back without a turn that ends: the loop was late, and is no longer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_FOR_ROOM_S):
                await self._changed.wait()

    def _next_takes(self) -> list[Pair]:
        """A queue as often as it is to be tried."""
        left = min(self._room(), TAKES_AT_ONCE)
        takes: list[Pair] = []
        for pair, tries in self._dirty.items():
            if left <= 0:
                break
            takes += [pair] * min(tries, left)
            left -= tries
        return takes

    async def _take_from(self, takes: list[Pair]) -> None:
        tried = {pair: self._dirty.pop(pair) for pair in dict.fromkeys(takes)}
        self._called.difference_update(tried)
        spare = self._room() > len(takes)
        replies = await asyncio.gather(*(self._take(*pair, spare) for pair in takes), return_exceptions=True)
        failed = False
        more = dict.fromkeys(tried, True)
        for pair, reply in zip(takes, replies, strict=True):
            if isinstance(reply, BaseException) and not isinstance(reply, TransportError):
                raise reply
            # Answers come in the order of the takes: the last one knows.
            more[pair] = bool(reply)
            failed = failed or isinstance(reply, TransportError)
        for pair, tries in tried.items():
            if more[pair]:  # more is left, or that is not known
                self._dirty[pair] = min(2 * tries, _MOST_OF_ONE)
        if failed:
            await asyncio.sleep(_PAUSE_S)  # paces trying again while Redis is away
