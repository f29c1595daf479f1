"""The writer on a real Redis: what leaves when, in which order, and what a cancel drops."""

from __future__ import annotations

import asyncio
import time

import pytest

from agent_worker.output.flush_timer import TICK_S, FlushTimer
from agent_worker.output.writer import MAX_GATHERED, MAX_IN_FLIGHT, TAIL_S, Hold, TextStream, TurnWriter
from selfhost_transport.errors import LeaseLost
from selfhost_transport.store.entries import Appended
from selfhost_transport.store.turn_request import unpack_context
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.encoder import Close, Create, Encoder
from tests.processes import wait_until
from tests.promptness import Stopwatch, TooSlow, assert_quick, prompt
from tests.worker.session import Room

LEASE_S = 30.0
NEVER_MS = 60_000
"""A window that does not end within a test, however slow the machine is."""


class Attempt:
    """A lease, its writer, and one open text."""

    def __init__(self, room: Room, lease: Lease, window_ms: int) -> None:
        self.lease = lease
        self.refusals: list[LeaseLost] = []
        self.hold = Hold(time.monotonic() + LEASE_S)
        self.writer = TurnWriter(room.turns, lease, self.hold, FlushTimer(window_ms), self.refusals.append)
        self.encoder = Encoder(unpack_context(lease.context), "answer", lease.step_start_serial)

    async def open_text(self) -> TextStream:
        ops = self.encoder.encode(p.TextStart("t"))
        await self.writer.write(ops)
        assert isinstance(ops[0], Create) and ops[0].stream_key is not None
        return self.writer.stream(ops[0].stream_key)

    async def close_text(self) -> None:
        await self.writer.write(self.encoder.encode(p.TextEnd("t")))


async def attempt(room: Room, window_ms: int = 40) -> Attempt:
    await room.send("hello")
    base = room.turns.keys.base_of(room.name)
    bucket = room.turns.keys.bases().index(base)
    lease = await room.turns.take(bucket, "assistant", "w1", int(LEASE_S * 1000))
    assert lease is not None
    return Attempt(room, lease, window_ms)


async def chunks(room: Room) -> list[str]:
    """The data of every append in the log that has some."""
    return [str(entry.data) for entry in await room.log() if isinstance(entry, Appended) and entry.data]


async def test_str_8_without_a_window_every_token_is_an_append(room: Room) -> None:
    it = await attempt(room, window_ms=0)
    text = await it.open_text()
    for n in range(10):
        text.add(f"{n} ")
    await it.close_text()
    assert await chunks(room) == [f"{n} " for n in range(10)]


async def test_str_7_the_first_token_leaves_at_once_and_later_ones_together(room: Room) -> None:
    it = await attempt(room, window_ms=NEVER_MS)
    text = await it.open_text()
    text.add("first ")
    text.add("second ")
    text.add("third ")
    await it.writer.drain()
    await room.turns.redis.command("PING")
    assert await chunks(room) == ["first "]
    await it.close_text()
    assert await chunks(room) == ["first ", "second third "]


@prompt
async def test_str_7_at_most_one_append_per_window(room: Room) -> None:
    before = len(await chunks(room))
    it = await attempt(room, window_ms=40)
    text = await it.open_text()
    watch = Stopwatch()
    for n in range(100):
        text.add(f"{n} ")
        await asyncio.sleep(0.004)  # a model of 250 tokens per second
    took = watch.seconds
    await it.close_text()
    found = (await chunks(room))[before:]
    assert "".join(found) == "".join(f"{n} " for n in range(100))
    assert len(found) <= took / 0.04 + 2
    if len(found) < took / 0.1:
        raise TooSlow(f"{len(found)} appends in {took:.1f} s")


async def test_a_slow_model_is_not_held_back(room: Room) -> None:
    it = await attempt(room, window_ms=20)
    text = await it.open_text()
    for n in range(4):
        text.add(f"{n} ")
        await asyncio.sleep(0.03)  # slower than the window
    assert await chunks(room) == ["0 ", "1 ", "2 ", "3 "]


async def test_gathered_text_is_bounded_however_long_the_window(room: Room) -> None:
    it = await attempt(room, window_ms=NEVER_MS)
    text = await it.open_text()
    text.add("first")
    text.add("x" * MAX_GATHERED)
    text.add("y")
    await it.writer.finish_writes()
    assert [len(chunk) for chunk in await chunks(room)] == [5, MAX_GATHERED + 1]


async def test_can_20_gathered_text_is_dropped_by_a_cancel(room: Room) -> None:
    it = await attempt(room, window_ms=NEVER_MS)
    text = await it.open_text()
    text.add("kept ")
    await it.writer.drain()
    text.add("gathered ")
    cancelled = await room.cancel(it.lease.turn_id)
    it.writer.stop(LeaseLost("cancelled"))
    text.flush()
    await room.turns.redis.command("PING")
    assert await chunks(room) == ["kept "]
    assert await room.content_after(it.lease.turn_id, cancelled.position) == []


async def test_p2_the_store_refuses_a_writer_that_has_not_heard_of_the_cancel(room: Room) -> None:
    it = await attempt(room, window_ms=0)
    text = await it.open_text()
    text.add("kept ")
    await it.writer.finish_writes()
    await room.cancel(it.lease.turn_id)
    text.add("refused ")
    with pytest.raises(LeaseLost):
        await it.writer.finish_writes()
    assert len(it.refusals) == 1 and it.writer.stopped
    with pytest.raises(LeaseLost):
        text.add("and so is the next")
    with pytest.raises(LeaseLost):
        await it.close_text()
    assert await chunks(room) == ["kept "]


async def test_str_13_order_holds_between_tokens_and_other_messages(room: Room) -> None:
    it = await attempt(room, window_ms=40)
    text = await it.open_text()
    for n in range(500):
        text.add(f"{n} ")
        if n % 50 == 0:
            await it.writer.write(it.encoder.encode(p.Data("data-mark", n)))
    await it.close_text()
    (answer,) = await room.outputs(it.lease.turn_id)
    assert answer.text == "".join(f"{n} " for n in range(500)) and answer.status == "complete"


async def test_p10_a_source_waits_while_redis_is_behind(room: Room) -> None:
    it = await attempt(room, window_ms=0)
    text = await it.open_text()
    for n in range(MAX_IN_FLIGHT):
        assert not it.writer.backpressured
        text.add(f"{n} ")
    assert it.writer.backpressured
    await it.writer.drain()
    assert not it.writer.backpressured


@pytest.mark.parametrize(
    "text",
    ["a👩‍👩‍👧b", "e\u0301 cafe\u0301", "漢字かな", "zero\0byte", "🏳️‍🌈", "مرحبا"],
)
async def test_str_16_text_is_safe_wherever_it_is_cut(room: Room, text: str) -> None:
    it = await attempt(room, window_ms=0)
    stream = await it.open_text()
    for character in text:
        stream.add(character)
    await it.close_text()
    (answer,) = await room.outputs(it.lease.turn_id)
    assert answer.text == text


@pytest.mark.parametrize("window_ms", [0, 40])
async def test_str_16_halves_of_a_character_are_joined(room: Room, window_ms: int) -> None:
    it = await attempt(room, window_ms=window_ms)
    stream = await it.open_text()
    for half in ("so \ud83d", "\ude00 and", " lost \ud83d"):
        stream.add(half)
        await it.writer.drain()
    await it.close_text()
    (answer,) = await room.outputs(it.lease.turn_id)
    assert answer.text == "so 😀 and lost \ufffd"


async def test_str_16_half_a_character_holds_nothing_else_back(room: Room) -> None:
    it = await attempt(room, window_ms=0)
    stream = await it.open_text()
    for chunk in ("so \ud83d", "\ude00", "!", "?"):
        stream.add(chunk)
    await it.writer.finish_writes()
    assert await chunks(room) == ["so ", "😀", "!", "?"]


async def test_closing_all_keeps_the_text_and_marks_it_cancelled(room: Room) -> None:
    it = await attempt(room)
    text = await it.open_text()
    text.add("half an ")
    text.add("answer")
    await it.writer.close_all()
    (answer,) = await room.outputs(it.lease.turn_id)
    assert (answer.text, answer.status) == ("half an answer", "cancelled")


async def test_closing_all_while_the_end_of_a_text_is_on_its_way_closes_it_once(room: Room) -> None:
    """An agent may fail, and be tried again, just when Redis is slow to answer."""
    it = await attempt(room)
    text = await it.open_text()
    text.add("whole")
    await it.writer.finish_writes()
    before = it.writer.written
    await room.turns.redis.command("CLIENT", "PAUSE", "300")
    await it.writer.hold([op for op in it.encoder.encode(p.TextEnd("t")) if isinstance(op, Close)])
    await wait_until(lambda: it.writer.written > before)
    await it.writer.close_all()
    (answer,) = await room.outputs(it.lease.turn_id)
    assert (answer.text, answer.status) == ("whole", "complete")


class Text:
    """Something gathered, for the clock."""

    def __init__(self) -> None:
        self.flushed: list[float] = []

    def flush(self) -> None:
        self.flushed.append(asyncio.get_running_loop().time())


@prompt
async def test_the_clock_flushes_at_the_first_tick_that_is_due() -> None:
    loop = asyncio.get_running_loop()
    flush_timer, texts = FlushTimer(40), [Text() for _ in range(50)]
    due = [loop.time() + n / 1000 for n in range(50)]
    for text, when in zip(texts, due, strict=True):
        flush_timer.schedule(text, when)
    assert flush_timer.waiting == 50
    await wait_until(lambda: flush_timer.waiting == 0)
    for text, when in zip(texts, due, strict=True):
        (at,) = text.flushed
        assert at - when >= -0.001
        assert_quick(at - when, 0.03)


class Flowing:
    """A text that always has tokens: its next window begins when one is over."""

    def __init__(self, flush_timer: FlushTimer, phase: int, began_before_s: float) -> None:
        self.ticks: list[int] = []
        self.windows: list[float] = []
        self._timer, self._phase, self._loop = flush_timer, phase, asyncio.get_running_loop()
        self._began = self._loop.time() - began_before_s
        self._next()

    def flush(self) -> None:
        now = self._loop.time()
        self.ticks.append(int(now / TICK_S))
        self.windows.append(now - self._began)
        self._began = now
        self._next()

    def _next(self) -> None:
        self._timer.schedule(self, self._began + self._timer.window_s, self._phase)


async def test_windows_of_one_place_end_on_the_same_ticks_after_a_while() -> None:
    flush_timer, texts = FlushTimer(40), list[Flowing]()
    near, far = (flush_timer.phase_of(place) for place in (0.5, 0.9))
    assert near is not None and far is not None and near != far
    for number in range(12):
        texts += [Flowing(flush_timer, phase, number * 0.003) for phase in (near, far)]

    def last_ticks(texts: list[Flowing]) -> set[int]:
        return {text.ticks[-1] for text in texts if text.ticks}

    def are_together() -> bool:
        return len(last_ticks(texts[::2])) == len(last_ticks(texts[1::2])) == 1

    await wait_until(are_together)
    # No window is more than a tick shorter than it should be.
    assert min(window for text in texts for window in text.windows) > flush_timer.window_s - 1.1 * TICK_S


def test_texts_of_one_server_are_due_on_any_tick() -> None:
    assert FlushTimer(40).phase_of(None) is None


@pytest.mark.parametrize("window_ms", [0, 1, 5, 14])
def test_a_window_of_few_ticks_is_not_divided(window_ms: int) -> None:
    assert FlushTimer(window_ms).phase_of(0.5) is None


def test_all_places_have_a_phase_within_the_window() -> None:
    flush_timer = FlushTimer(40)
    assert {flush_timer.phase_of(slot / 16384) for slot in range(16384)} == set(range(9))


async def test_the_end_of_a_text_is_written_once_however_long_the_end_of_the_turn_takes(room: Room) -> None:
    """While Redis refuses or is away, the step that ends the turn waits, and has what is held."""
    it = await attempt(room, window_ms=NEVER_MS)
    text = await it.open_text()
    text.add("first ")
    text.add("last")
    closing = [op for op in it.encoder.encode(p.TextEnd("t")) if isinstance(op, Close)]
    await it.writer.hold(closing)
    await it.writer.finish_writes(hold=True)
    held = await it.writer.held()
    await asyncio.sleep(TAIL_S * 4)  # the time after which it would have been written by itself
    await room.turns.redis.command("PING")
    assert await chunks(room) == ["first "]
    await room.turns.write(it.lease, 100, held)
    it.writer.forget_held()
    await it.writer.finish_writes()
    assert await chunks(room) == ["first ", "last"]


async def test_p7_the_end_of_a_text_does_not_hide_that_a_chunk_of_it_was_refused(room: Room) -> None:
    it = await attempt(room, window_ms=NEVER_MS)
    text = await it.open_text()
    text.add("first ")
    await it.writer.finish_writes()
    base = room.turns.keys.base_of(room.name)
    # As in a Redis that has lost what was written last.
    await room.turns.redis.command("SET", f"{base}x:{text.ref}:{room.name}", "")
    text.add("second ")
    text.flush()
    text.add("third")
    await it.writer.hold([op for op in it.encoder.encode(p.TextEnd("t")) if isinstance(op, Close)])
    assert await it.writer.held() == []
    assert it.writer.stopped


async def test_what_is_held_is_written_after_all_when_the_turn_goes_on(room: Room) -> None:
    it = await attempt(room, window_ms=NEVER_MS)
    text = await it.open_text()
    text.add("first ")
    text.add("last")
    await it.writer.hold([op for op in it.encoder.encode(p.TextEnd("t")) if isinstance(op, Close)])
    await it.writer.finish_writes(hold=True)
    assert len(await it.writer.held()) == 1
    it.writer.release_held()
    await wait_until(lambda: _written(room, ["first ", "last"]))


async def _written(room: Room, expected: list[str]) -> bool:
    return await chunks(room) == expected
