"""Writes one turn: tokens as pipelined appends, everything else as numbered steps, in the order given.

A token costs one list append unless it opens a window. No token is awaited; what bounds memory is the number
of appends in flight (P10). Every call may be repeated after a lost reply: an append is recognised by its
offset, a step by its number, so a lost connection is ridden out for as long as the lease lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from agent_worker.output.flush_timer import FlushTimer
from agent_worker.output.left_behind import OpenStream
from selfhost_transport.errors import LeaseLost, TransportError
from selfhost_transport.redis_io.calls import ReplyCallback
from selfhost_transport.settings import Settings
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.turn_operations import CloseMessage, CreateMessage, OpenText, WriteOperation
from selfhost_transport.store.turn_store import GAP, LOST, Lease, TurnStore, lease_lost
from selfhost_transport.turns import encoder
from selfhost_transport.turns.values import is_whole, whole_characters
from selfhost_transport.wire.serial import Position

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 64
"""Unacknowledged appends of one turn before its source has to wait."""
MAX_GATHERED = 16_384
"""Characters that are gathered before they leave, however long the window."""

TAIL_S = 0.04
"""How long the end of a message waits for the turn's terminal, to be written with it."""

OnLost = Callable[[LeaseLost], None]
_UNREAD = ReplyCallback(lambda reply, error: None)
"""Of a writer that is stopped: it sends nothing."""


OUTAGE_S = 60.0
"""How long calls of a turn ride out a Redis that is away. The fence keeps them from writing for a turn that was lost."""


@dataclass(slots=True)
class Hold:
    """How long the worker may count on its lease; the renewal loop moves it on."""

    # Monotonic time.
    until: float

    @property
    def remaining_s(self) -> float:
        """Seconds left; 0 once it has run out: another worker may have taken the turn."""
        return max(0.0, self.until - time.monotonic())

    @property
    def retry_s(self) -> float:
        """How long a call is repeated: longer than the lease, since only Redis knows whether that was taken."""
        return self.remaining_s + OUTAGE_S


def read_s_of(settings: Settings) -> float:
    """How long reads of a turn are repeated: as long as its writes."""
    return settings.worker.lease_ms / 1000 + OUTAGE_S


class TextStream:
    """One open message of a turn: its first token leaves at once, later ones at most once per window (STR-7)."""

    __slots__ = ("_gathered", "_half", "_loop", "_next", "_size", "_text", "_writer", "closing")

    def __init__(self, writer: TurnWriter, ref: Ref, closing: dict[str, Any], first: str = "") -> None:
        # `first`: what it was opened with.
        self.closing = closing
        self._writer = writer
        self._text = OpenText(ref, len(first.encode()))
        self._gathered: list[str] = []
        self._size = 0
        # The first half of a character whose second half has not come yet.
        self._half = ""
        self._loop = asyncio.get_running_loop()
        # The loop time from which the next token may leave.
        self._next = self._loop.time() + writer.flush_timer.window_s if first else 0.0

    @property
    def ref(self) -> Ref:
        """The message in the session."""
        return self._text.ref

    def add(self, chunk: str) -> None:
        """Write a token, now or with the others of its window. Raises what stopped the writer, if anything."""
        gathered = self._gathered
        if gathered:
            gathered.append(chunk)
            self._size += len(chunk)
            if self._size > MAX_GATHERED:
                self.flush()
            return
        writer = self._writer
        if writer.failure is not None:
            raise writer.failure
        flush_timer = writer.flush_timer
        if not flush_timer.window_s:
            self._send(chunk)
            return
        now = self._loop.time()
        if now >= self._next:
            self._next = now + flush_timer.window_s
            self._send(chunk)
        else:
            gathered.append(chunk)
            self._size = len(chunk)
            flush_timer.schedule(self, self._next, writer.phase)

    def flush(self) -> None:
        """Send what was gathered; nothing if the writer has stopped: a cancel drops it (CAN-20)."""
        if not self._gathered:
            return
        chunk = "".join(self._gathered)
        self._gathered = []
        if not self._writer.stopped:
            self._next = self._loop.time() + self._writer.flush_timer.window_s
            self._send(chunk)

    def rest(self) -> str:
        """The gathered text, for the caller to write at the end of the stream."""
        chunk = self._half + "".join(self._gathered)
        self._gathered, self._half = [], ""
        return whole_characters(chunk)

    def _send(self, chunk: str) -> None:
        if self._half:
            chunk, self._half = self._half + chunk, ""
        try:
            self._writer.send(self._text, chunk)
        except UnicodeEncodeError:
            self._send_surrogates(chunk)

    def _send_surrogates(self, chunk: str) -> None:
        """JSON may carry a character as two escapes, and a provider may cut between them (STR-16)."""
        if "\ud800" <= chunk[-1] <= "\udbff":
            self._half, chunk = chunk[-1], chunk[:-1]
        if whole := whole_characters(chunk):
            self._writer.send(self._text, whole)


@dataclass(frozen=True, slots=True)
class _Write:
    """An operation of a step. `text`: what a message begins or ends with."""

    op: encoder.Create | encoder.Close
    text: str = ""

    def begins_with(self, chunk: encoder.Append) -> bool:
        """Whether the chunk can be written together with this, as the first of the message that it opens."""
        opens = isinstance(self.op, encoder.Create) and self.op.stream_key == chunk.stream_key
        return opens and not self.text and is_whole(chunk.data)


class TurnWriter:
    """The only way that output of a turn reaches the session; used by one attempt on one lease (P6).

    `on_lost` is called once, when the store refuses a write: the turn was cancelled, ended or taken over.
    """

    def __init__(
        self,
        store: TurnStore,
        lease: Lease,
        hold: Hold,
        flush_timer: FlushTimer,
        on_lost: OnLost | None = None,
    ) -> None:
        self.flush_timer = flush_timer
        self.phase = flush_timer.phase_of(store.place_of(lease.session))
        self._store = store
        self._lease = lease
        self._hold = hold
        self._on_lost = on_lost
        self._streams: dict[str, TextStream] = {}
        self._sequence = 0
        # Done once, before the first output is written.
        self.before_output: Callable[[], Awaitable[None]] | None = None
        # Counts appends and steps: whether the turn is silent.
        self.written = 0
        # Steps are numbered, and each waits for the appends before it.
        self._step = asyncio.Lock()
        self._in_flight = 0
        self._answers = ReplyCallback(self._answered)
        # How many wait for a reply, and what wakes them.
        self._waiters = 0
        self._arrived = asyncio.Event()
        # What stopped it: LeaseLost, or the failure of an append.
        self.failure: TransportError | None = None
        # What ends a message, until something follows it.
        self._tail: list[_Write] = []
        self._tail_timer: asyncio.TimerHandle | None = None
        # Whether the step that ends the turn is about to write it.
        self._reserved = False
        self._writing_tail: asyncio.Task[None] | None = None
        # The write in progress, also for callers that were cancelled meanwhile.
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def stopped(self) -> bool:
        """Whether writing has stopped."""
        return self.failure is not None

    @property
    def backpressured(self) -> bool:
        """Whether the source should wait until Redis has caught up."""
        return self._in_flight >= MAX_IN_FLIGHT

    def check(self) -> None:
        """Raise what stopped the writer: LeaseLost, or the failure of an append."""
        if self.failure is not None:
            raise self.failure

    def stop(self, reason: TransportError) -> None:
        """Stop writing and drop the gathered text; the first reason counts."""
        if self.failure is None:
            self.failure = reason
            self._arrived.set()
            self.forget_held()
            if isinstance(reason, LeaseLost) and self._on_lost is not None:
                self._on_lost(reason)

    def let_go(self) -> None:
        """The attempt is over, and its agent: what it has left behind writes nothing more.

        Its circles end here. They would keep all of the turn until the collector comes by, which then stops the worker for long.
        """
        self._on_lost = self.before_output = None
        self.stop(lease_lost(self._lease, b"ended"))
        self._streams.clear()
        self._answers = _UNREAD

    def stream(self, key: str) -> TextStream:
        """The open message that a `Create` with this stream key made. Raises what stopped the writer."""
        self.check()
        return self._streams[key]

    def take_up(self, key: str, left: OpenStream) -> TextStream:
        """Continue with a message that an earlier attempt left open."""
        stream = self._streams[key] = TextStream(self, left.ref, left.closing, left.text)
        return stream

    def send(self, text: OpenText, chunk: str) -> None:
        """Start one append; its reply is handled when it arrives."""
        # As `Hold.retry_s` has it: here everything is done for each token.
        remaining = self._hold.until - time.monotonic()
        retry_s = remaining + OUTAGE_S if remaining > 0 else OUTAGE_S
        self._store.send_append(self._lease, text, chunk, self._answers, retry_s)
        self._in_flight += 1
        self.written += 1

    async def drain(self) -> None:
        """Wait while the writer is backpressured; otherwise only let the loop do its other work."""
        if not self.backpressured:
            await asyncio.sleep(0)
        while self.backpressured and not self.stopped:
            await self._next_answer()

    async def write(self, ops: Sequence[encoder.OutputOperation]) -> None:
        """Write operations of the encoder in order. Raises LeaseLost, or ServiceError when Redis stays away.

        Creates and closes are one atomic step, except for messages that are opened and closed at once; what was
        gathered before them goes first.
        """
        self.check()
        if self._writing:
            await self.caught_up()
        if self.before_output is None and all(type(op) is encoder.Append for op in ops):
            # The path of every token of a provider's stream.
            for op in ops:
                self._streams[op.stream_key].add(op.data)  # type: ignore[union-attr, index]
            return
        await self._uncut(self._write_ops(ops))

    async def caught_up(self) -> None:
        """Wait until what others are writing at the moment, or were when they were cancelled, is written."""
        while self._writing:
            await asyncio.wait(self._writing)

    async def _uncut(self, writing: Coroutine[Any, Any, None]) -> None:
        """Write to the end also when the caller is cancelled: by a time-out of the agent's own, after which it continues."""
        task = asyncio.create_task(writing, name=f"write {self._lease.turn_id}")
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                task.add_done_callback(self._written_unawaited)
            raise

    def _written_unawaited(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("turn.write_failed turn=%s error=%r", self._lease.turn_id, error)

    async def _write_ops(self, ops: Sequence[encoder.OutputOperation]) -> None:
        if self.before_output is not None:
            before, self.before_output = self.before_output, None
            await before()
        step: list[_Write] = []
        for op in ops:
            if isinstance(op, encoder.Close) and op.stream_key not in self._streams:
                # It closes what this very step opens, and the position of that must be known.
                await self._write_step(step)
                step = []
            if not isinstance(op, encoder.Append):
                step.append(self._to_write(op))
            elif step and step[-1].begins_with(op):
                step[-1] = _Write(step[-1].op, op.data)
            else:
                await self._write_step(step)
                step = []
                self._streams[op.stream_key].add(op.data)
        await self._write_step(step)

    async def hold(self, ops: Sequence[encoder.Create | encoder.Close]) -> None:
        """Write the end of a message: in one step with the next write, which for the last one is the terminal.

        If nothing comes within `TAIL_S`, by itself. Raises what stopped the writer.
        """
        self.check()
        self._tail += map(self._to_write, ops)
        if self._tail_timer is None:
            self._tail_timer = asyncio.get_running_loop().call_later(TAIL_S, self._tail_is_due)

    async def held(self) -> list[WriteOperation]:
        """The held writes, for the step that ends the turn; none if the writer has stopped.

        From here on it is that step's to write: not by itself any more, until `release_held`. What was sent before is
        waited for: should a chunk have been refused, the end of its text must not hide the hole (P7).
        """
        self._reserved = True
        with contextlib.suppress(TransportError):  # it has stopped the writer
            await self.finish_writes(hold=True)
        return [] if self.stopped else [self._operation(write) for write in self._tail]

    def release_held(self) -> None:
        """The turn was not ended: held writes are written as usual."""
        self._reserved = False
        if self._tail and self._tail_timer is None:
            self._tail_timer = asyncio.get_running_loop().call_later(TAIL_S, self._tail_is_due)

    def forget_held(self) -> None:
        """The turn was ended, and what was held is written or dropped."""
        self._tail = []
        self._reserved = False
        if self._tail_timer is not None:
            self._tail_timer.cancel()
            self._tail_timer = None

    async def close_all(self, *then: encoder.Create) -> None:
        """Close every open message as cancelled, with all its text, and write `then` in the same step."""
        # A message whose end is in flight is no longer open once that is written.
        await self.finish_writes(hold=True)
        ending = {write.op.stream_key for write in self._tail}
        closes = [
            encoder.Close(key, stream.closing) for key, stream in self._streams.items() if key not in ending
        ]
        await self.write([*closes, *then])

    async def finish_writes(self, *, hold: bool = False) -> None:
        """Send the gathered text and wait until all is written, except, with `hold`, the held writes.

        Raises what stopped the writer.
        """
        if hold or not self._tail:
            async with self._step:
                await self._finish_appends()
        else:
            await self._uncut(self._write_step(()))

    async def _write_step(self, step: Sequence[_Write]) -> None:
        if not step and not self._tail:
            return
        async with self._step:
            await self._finish_appends()
            if not step and self._reserved:
                return
            step = [*self._tail, *step]
            self.forget_held()
            if not step:
                return
            self._sequence += 1
            self.written += 1
            try:
                positions = await self._store.write(
                    self._lease,
                    self._sequence,
                    [self._operation(write) for write in step],
                    retry_s=self._hold.retry_s,
                )
            except TransportError as error:
                # Whether it was written is not known, so nothing may follow it.
                self.stop(error)
                raise
            self._note(step, positions)

    def _to_write(self, op: encoder.Create | encoder.Close) -> _Write:
        """A close includes the gathered text."""
        return _Write(op, self._streams[op.stream_key].rest() if isinstance(op, encoder.Close) else "")

    def _operation(self, write: _Write) -> WriteOperation:
        op = write.op
        if isinstance(op, encoder.Create):
            return CreateMessage(op.message, op.closing, write.text)
        return CloseMessage(self._streams[op.stream_key].ref, op.extras, write.text)

    def _note(self, step: Sequence[_Write], positions: Sequence[Position]) -> None:
        for write, position in zip(step, positions, strict=True):
            op = write.op
            if isinstance(op, encoder.Close):
                self._streams.pop(op.stream_key, None)
            elif op.stream_key is not None:
                stream = TextStream(self, Ref(position), op.closing or {}, write.text)
                self._streams[op.stream_key] = stream

    def _tail_is_due(self) -> None:
        self._tail_timer = None
        self._writing_tail = asyncio.create_task(self._write_tail(), name=f"tail {self._lease.turn_id}")

    async def _write_tail(self) -> None:
        with contextlib.suppress(
            TransportError
        ):  # it has stopped the writer, and is raised at the next write
            await self._write_step(())
        # The task knows its message, and that its writer.
        self._writing_tail = None

    async def _finish_appends(self) -> None:
        """Send the gathered text and wait for the reply to every append: a step must not hide a hole."""
        for stream in self._streams.values():
            stream.flush()
        while self._in_flight and not self.stopped:
            await self._next_answer()
        self.check()

    async def _next_answer(self) -> None:
        self._waiters += 1
        try:
            self._arrived.clear()
            await self._arrived.wait()
        finally:
            self._waiters -= 1

    def _answered(self, reply: Any, error: BaseException | None) -> None:
        self._in_flight -= 1
        self.flush_timer.turned_at = time.monotonic()
        if self._waiters:
            self._arrived.set()
        if error is None and reply != LOST and reply != GAP:
            return
        try:
            if error is not None:
                raise error
            self._store.check_append(self._lease, reply)
        except TransportError as failure:
            self.stop(failure)
