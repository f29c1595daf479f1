"""Which appends are held and what leaves together; the clock is the test's (protocol section 7.6)."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from gateway.commands.commands import AppendToMessage, Publish
from gateway.realtime.append_coalescer import MAX_GATHERED, PATIENCE, PROMPT_S, AppendCoalescer, window_ms
from gateway.realtime.effects import Command
from selfhost_transport.store.appends import MessageAppend
from selfhost_transport.store.entries import Ref
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position
from tests.processes import wait_until

ONE, TWO = Ref(Position(1, 0)), Ref(Position(2, 0))


class Bench:
    """A rollup whose operations are kept, and whose clock stands still unless it is moved."""

    def __init__(self, window: int = 20) -> None:
        self.started: list[Command] = []
        self.now = 0.0
        self.rollup = AppendCoalescer(window, self.started.append, lambda: self.now)
        self._tickets = itertools.count(1)

    def append(self, data: str | bytes, ref: Ref = ONE, author: str | None = None) -> int:
        ticket = next(self._tickets)
        self.rollup.add(Command(ticket, AppendToMessage("s", ref, "epoch", (MessageAppend(data),), author)))
        return ticket

    def publish(self) -> None:
        self.rollup.add(Command(next(self._tickets), Publish("s", (Message(),))))

    @property
    def texts(self) -> list[str]:
        """The data of each append that was started."""
        return [
            "".join(str(append.data) for append in commit.operation.appends)
            for commit in self.started
            if isinstance(commit.operation, AppendToMessage)
        ]


async def test_the_first_goes_at_once_and_the_rest_at_the_end_of_the_window() -> None:
    bench = Bench()
    for text in "abc":
        bench.append(text)
    assert bench.texts == ["a"]
    bench.now = 0.02
    await wait_until(lambda: len(bench.started) == 2)
    assert bench.texts == ["a", "bc"]
    assert (bench.started[1].ticket, bench.started[1].others) == (2, (3,))


async def test_messages_are_gathered_apart_and_leave_before_anything_else() -> None:
    bench = Bench(500)
    for text in "abc":
        bench.append(text)
        bench.append(text, TWO)
    bench.publish()
    assert bench.texts == ["a", "a", "bc", "bc"]
    assert isinstance(bench.started[-1].operation, Publish)
    bench.rollup.close()


async def test_without_a_window_nothing_is_held() -> None:
    bench = Bench(0)
    for text in "abc":
        bench.append(text)
    assert bench.texts == ["a", "b", "c"]


async def test_what_cannot_be_one_append_is_not() -> None:
    bench = Bench(500)
    bench.append("a")
    bench.append("b")
    bench.append(b"c")
    bench.append("d", author="alice")
    bench.rollup.close()
    assert bench.texts == ["a", "b", "b'c'", "d"]


async def test_what_is_held_is_bounded() -> None:
    bench = Bench(500)
    for _ in range(MAX_GATHERED + 2):
        bench.append("x")
    assert bench.texts == ["x", "x" * MAX_GATHERED]
    bench.rollup.close()


async def test_a_client_that_awaits_every_answer_is_not_held() -> None:
    bench = Bench(500)
    for text in ["a", *"x" * PATIENCE]:
        ticket = bench.append(text)
        bench.rollup.flush()
        bench.rollup.answered(ticket)
    held = len(bench.started)
    bench.rollup.answered(bench.append("b"))
    assert len(bench.started) == held + 1
    bench.now = PROMPT_S * 2
    bench.append("c")
    assert len(bench.started) == held + 1, "it came late: no one waited for the answer"
    bench.rollup.close()
    assert bench.texts[-1] == "c"


async def test_a_closed_one_holds_nothing() -> None:
    bench = Bench(20)
    bench.append("a")
    bench.append("b")
    bench.rollup.close()
    bench.append("c")
    await asyncio.sleep(0)  # nothing is due
    assert bench.texts == ["a", "b", "c"]


@pytest.mark.parametrize(("text", "window"), [("0", 0), ("500", 500), (None, 40), ("41", 40), ("x", 40)])
def test_only_known_windows_count(text: str | None, window: int) -> None:
    assert window_ms(text) == window
