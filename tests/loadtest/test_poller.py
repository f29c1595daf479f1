"""The poller: who learns that a socket is readable, and until when."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from selfhost_transport.loadtest.poller import Poller


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(3)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


async def test_each_reader_gets_what_came_for_it(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    poller = Poller.running()
    assert poller is not None
    found: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
    for number, (ours, theirs) in enumerate(pairs):
        fd = ours.fileno()
        poller.add(fd, lambda number=number, fd=fd: found.put_nowait((number, os.read(fd, 100))))  # type: ignore[misc]
        theirs.send(b"%d" % number)
    assert sorted([await found.get() for _ in pairs]) == [(0, b"0"), (1, b"1"), (2, b"2")]
    for ours, _ in pairs:
        poller.remove(ours.fileno())


async def test_a_reader_that_was_removed_is_not_called_in_the_same_round(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    poller = Poller.running()
    assert poller is not None
    called: list[int] = []
    all_done = asyncio.Event()

    def read(number: int) -> None:
        called.append(number)
        for ours, _ in pairs:
            poller.remove(ours.fileno())
        all_done.set()

    for number, (ours, theirs) in enumerate(pairs):
        poller.add(ours.fileno(), lambda number=number: read(number))  # type: ignore[misc]
        theirs.send(b"x")
    await all_done.wait()
    assert len(called) == 1
    # Nothing is left open, and it can be used again.
    poller.add(pairs[0][0].fileno(), lambda: read(9))
    all_done.clear()
    await all_done.wait()
    assert called[1:] == [9]
