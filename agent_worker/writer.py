"""Writes one turn: tokens as pipelined appends, everything else as numbered steps, in the order given.

A token costs one list append unless it opens a window. No token is awaited; what bounds memory is the number
of appends on their way (P10). Every call may be repeated after a lost reply: an append is recognised by its
offset, a step by its number, so a lost connection is ridden out for as long as the lease lasts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent_worker.rollup import Rollup
from selfhost_transport.errors import LeaseLost, TransportError
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.turn_store import Close, Create, Lease, OpenText, Operation, TurnStore
from selfhost_transport.turns import encoder
from selfhost_transport.wire.serial import Position

MAX_IN_FLIGHT = 64
"""Appends of one turn on their way to Redis before its source has to wait."""
MAX_GATHERED = 16_384
"""Characters that are gathered before they leave, however long the window."""

OnLost = Callable[[LeaseLost], None]


@dataclass(slots=True)
class Hold:
    """How long the worker may count on its lease; the renewal loop moves it on."""

    # Monotonic time.
    until: float

    @property
    def remaining_s(self) -> float:
        """Seconds left; 0 once it has run out."""
        return max(0.0, self.until - time.monotonic())


class TextStream:
    """One open message of a turn: its first token leaves at once, later ones at most once per window (STR-7)."""

    __slots__ = ("_gathered", "_half", "_loop", "_next", "_size", "_text", "_writer", "closing")

    def __init__(self, writer: TurnWriter, ref: Ref, closing: dict[str, Any]) -> None:
        self.closing = closing
        self._writer = writer
        self._text = OpenText(ref)
        self._gathered: list[str] = []
        self._size = 0
        # The first half of a character whose second half has not come yet.
        self._half = ""
        # The loop time from which the next token may leave.
        self._next = 0.0
        self._loop = asyncio.get_running_loop()

    @property
    def ref(self) -> Ref:
        """The message in the session."""
        return self._text.ref

    def add(self, piece: str) -> None:
        """Write a token, now or with the others of its window. Raises what stopped the writer, if anything."""
        gathered = self._gathered
        if gathered:
            gathered.append(piece)
            self._size += len(piece)
            if self._size > MAX_GATHERED:
                self.flush()
            return
        self._writer.check()
        rollup = self._writer.rollup
        if not rollup.window_s:
            self._send(piece)
            return
        now = self._loop.time()
        if now >= self._next:
            self._next = now + rollup.window_s
            self._send(piece)
        else:
            gathered.append(piece)
            self._size = len(piece)
            rollup.schedule(self, self._next)

    def flush(self) -> None:
        """Send what was gathered; nothing if the writer has stopped: a cancel drops it (CAN-20)."""
        if not self._gathered:
            return
        piece = "".join(self._gathered)
        self._gathered = []
        if not self._writer.stopped:
            self._next = self._loop.time() + self._writer.rollup.window_s
            self._send(piece)

    def finish(self) -> None:
        """Send everything: no more will follow before the next step."""
        self.flush()
        if self._half and not self._writer.stopped:
            self._half = ""
            self._writer.send(self._text, "\ufffd")

    def _send(self, piece: str) -> None:
        piece = self._half + piece
        self._half = ""
        try:
            self._writer.send(self._text, piece)
        except UnicodeEncodeError:
            self._send_surrogates(piece)

    def _send_surrogates(self, piece: str) -> None:
        """JSON may carry a character as two escapes, and a provider may cut between them (STR-16)."""
        if "\ud800" <= piece[-1] <= "\udbff":
            self._half, piece = piece[-1], piece[:-1]
        whole = piece.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        if whole:
            self._writer.send(self._text, whole)


class TurnWriter:
    """The only way that output of a turn reaches the session; used by one attempt on one lease (P6).

    `on_lost` is called once, when the store refuses a write: the turn was cancelled, ended or taken over.
    """

    def __init__(
        self, store: TurnStore, lease: Lease, hold: Hold, rollup: Rollup, on_lost: OnLost | None = None
    ) -> None:
        self.rollup = rollup
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
        self._arrived = asyncio.Event()
        self._failure: TransportError | None = None

    @property
    def stopped(self) -> bool:
        """Whether nothing will be written any more."""
        return self._failure is not None

    @property
    def crowded(self) -> bool:
        """Whether the source should wait until Redis has caught up."""
        return self._in_flight >= MAX_IN_FLIGHT

    def check(self) -> None:
        """Raise what stopped the writer: LeaseLost, or the failure of an append."""
        if self._failure is not None:
            raise self._failure

    def stop(self, reason: TransportError) -> None:
        """Write nothing more and drop what is gathered; the first reason counts."""
        if self._failure is None:
            self._failure = reason
            self._arrived.set()
            if isinstance(reason, LeaseLost) and self._on_lost is not None:
                self._on_lost(reason)

    def stream(self, key: str) -> TextStream:
        """The open message that a Create with this stream key made."""
        return self._streams[key]

    def send(self, text: OpenText, piece: str) -> None:
        """Start one append; its answer is looked at when it comes."""
        reply = self._store.append(self._lease, text, piece, retry_s=self._hold.remaining_s)
        self._in_flight += 1
        self.written += 1
        reply.add_done_callback(self._answered)

    async def room(self) -> None:
        """Wait while the writer is crowded; otherwise only let the loop do its other work."""
        if not self.crowded:
            await asyncio.sleep(0)
        while self.crowded and not self.stopped:
            await self._next_answer()

    async def write(self, ops: Sequence[encoder.Op]) -> None:
        """Write operations of the encoder in order. Raises LeaseLost, or ServiceError when Redis stays away.

        Creates and closes are one atomic step; what was gathered before them goes first.
        """
        if self.before_output is not None:
            before, self.before_output = self.before_output, None
            await before()
        step: list[encoder.Create | encoder.Close] = []
        for op in ops:
            if isinstance(op, encoder.Append):
                await self._write_step(step)
                step = []
                self._streams[op.stream_key].add(op.data)
            else:
                step.append(op)
        await self._write_step(step)

    async def close_all(self, *then: encoder.Create) -> None:
        """Close every open message as cancelled, with all its text, and write `then` in the same step."""
        closes = [encoder.Close(key, stream.closing) for key, stream in self._streams.items()]
        await self.write([*closes, *then])

    async def settle(self) -> None:
        """Send what is gathered and wait until all is written. Raises what stopped the writer."""
        async with self._step:
            await self._settle()

    async def _write_step(self, step: Sequence[encoder.Create | encoder.Close]) -> None:
        if not step:
            return
        async with self._step:
            await self._settle()
            self._sequence += 1
            self.written += 1
            try:
                positions = await self._store.write(
                    self._lease, self._sequence, self._operations(step), retry_s=self._hold.remaining_s
                )
            except TransportError as error:
                # Whether it was written is not known, so nothing may follow it.
                self.stop(error)
                raise
            self._note(step, positions)

    def _operations(self, step: Sequence[encoder.Create | encoder.Close]) -> list[Operation]:
        return [
            Create(op.message, op.closing)
            if isinstance(op, encoder.Create)
            else Close(self._streams[op.stream_key].ref, op.extras)
            for op in step
        ]

    def _note(self, step: Sequence[encoder.Create | encoder.Close], positions: Sequence[Position]) -> None:
        for op, position in zip(step, positions, strict=True):
            if isinstance(op, encoder.Close):
                del self._streams[op.stream_key]
            elif op.stream_key is not None:
                self._streams[op.stream_key] = TextStream(self, Ref(position), op.closing or {})

    async def _settle(self) -> None:
        """Send what is gathered and wait until every append is answered: a step must not hide a hole."""
        for stream in self._streams.values():
            stream.finish()
        while self._in_flight and not self.stopped:
            await self._next_answer()
        self.check()

    async def _next_answer(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    def _answered(self, reply: asyncio.Future[Any]) -> None:
        self._in_flight -= 1
        self._arrived.set()
        error = None if reply.cancelled() else reply.exception()
        try:
            if error is not None:
                raise error
            self._store.check_append(self._lease, reply.result())
        except TransportError as failure:
            self.stop(failure)
