"""Reads the sockets of a generator process from one epoll of its own, instead of through the event loop's selector.

For every readable socket asyncio makes a key, a handle and a run of it in a context; with a frame in each read
that costs as much as everything else that is done with the frame. The loop watches the one epoll, which is itself
readable when any of its sockets is; writing, closing and timers stay asyncio's.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import ClassVar
from weakref import WeakKeyDictionary

# Level-triggered: what is not read at once is found again. At most so many sockets between two turns of the loop,
# so that timers are not late by more than a few ms.
_AT_ONCE = 256
ROUND_S = 0.001
"""Between two rounds of reading: several sockets are read for each time the process wakes. On a machine that it
shares with what it measures, waking for every frame would cost both more than the frame. An arrival is seen up to
this much late, and never early."""


class Poller:
    """The readable sockets of one event loop. Call its methods inside that loop."""

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Poller]] = WeakKeyDictionary()

    def __init__(self) -> None:
        # Only while there is something to read: an idle loop holds no file open.
        self._epoll: select.epoll | None = None
        self._readers: dict[int, Callable[[], None]] = {}
        # Between two rounds.
        self._resting: asyncio.TimerHandle | None = None

    @classmethod
    def running(cls) -> Poller | None:
        """That of the running loop; None where there is no epoll."""
        if not hasattr(select, "epoll"):
            return None
        return cls._of_loops.setdefault(asyncio.get_running_loop(), cls())

    def add(self, fd: int, reader: Callable[[], None]) -> None:
        """Call `reader` whenever the file is readable, or its other end has gone."""
        if self._epoll is None:
            self._epoll = select.epoll()
            self._watch()
        self._readers[fd] = reader
        self._epoll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Stop that; nothing happens for a file that is not there."""
        if self._epoll is None or self._readers.pop(fd, None) is None:
            return
        self._epoll.unregister(fd)
        if not self._readers:
            if self._resting is not None:
                self._resting.cancel()
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _watch(self) -> None:
        if self._epoll is not None:
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)

    def _ready(self) -> None:
        if self._epoll is None:
            return
        loop, readers = asyncio.get_running_loop(), self._readers
        found = self._epoll.poll(0, _AT_ONCE)
        if len(found) < _AT_ONCE:
            loop.remove_reader(self._epoll.fileno())
            self._resting = loop.call_later(ROUND_S, self._watch)
        for fd, _ in found:
            # One that an earlier one of the same round has closed is gone.
            reader = readers.get(fd)
            if reader is not None:
                reader()
