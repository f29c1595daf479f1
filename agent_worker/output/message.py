"""One assistant message: what an agent yields becomes chunks, chunks become operations (ai-transport 4, 5.1)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from agent_worker.output.left_behind import LeftBehind
from agent_worker.output.usage import UsageCount
from agent_worker.output.writer import TextStream, TurnWriter
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import encoder
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.codecs import UI_MESSAGES
from selfhost_transport.turns.context import TurnContext

_YIELD_EVERY = 64
"""Tokens after which a source that never waits lets the loop do its other work (renewals, cancels)."""
_YIELD_EVERY_S = 0.01
"""The same in seconds since the loop was last seen to turn; one that took `_SLOW_S` longer lets it do more of that."""
_SLOW_S = 0.02
_TURNS_AFTER_SLOW = 4


@dataclass(slots=True, frozen=True)
class Reasoning:
    """A chunk of the model's reasoning, shown apart from the answer."""

    text: str


OutputChunk: TypeAlias = str | Reasoning | p.Chunk | Mapping[str, Any]
"""What an agent may yield: text, reasoning, a chunk, or an event of its codec in its JSON form."""

_STARTS: dict[str, type[p.TextStart | p.ReasoningStart]] = {
    "text": p.TextStart,
    "reasoning": p.ReasoningStart,
}
_DELTAS: dict[str, type[p.TextDelta | p.ReasoningDelta]] = {
    "text": p.TextDelta,
    "reasoning": p.ReasoningDelta,
}
_ENDS: dict[str, type[p.TextEnd | p.ReasoningEnd]] = {"text": p.TextEnd, "reasoning": p.ReasoningEnd}


class Earlier:
    """Text that a lost attempt had written and that this one continues; it begins the first text part (REC-8)."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def take(self) -> str:
        """The text, once; then ''."""
        text, self._text = self._text, ""
        return text

    def chunks(self, part_id: str) -> list[p.Chunk]:
        """The same as a chunk of the part that was just opened."""
        text = self.take()
        return [p.TextDelta(part_id, text)] if text else []


class Output:
    """One pass of a turn (ai-transport section 1): one assistant message, opened by its first chunk.

    Plain text is put into a text part that is opened and closed as needed; the brackets that a source does not
    send itself (`start`, `start-step`, `finish-step`, `finish`) are added.
    """

    def __init__(
        self,
        ctx: TurnContext,
        writer: TurnWriter,
        step_start_serial: str,
        *,
        steers: Callable[[], Sequence[str]] = tuple,
        earlier: Earlier | None = None,
        announced: dict[str, Output] | None = None,
        codec: Codec = UI_MESSAGES,
        left: LeftBehind | None = None,
        usage: UsageCount | None = None,
    ) -> None:
        # `left`: the message of a lost attempt, to continue with.
        self.message_id = str(uuid.uuid4()) if left is None else left.message_id
        self._codec = codec
        self._encoder = codec.encoder(ctx, self.message_id, step_start_serial)
        # The steers that are answered at the moment, and those that the encoder stamps.
        self._steers = steers
        self._stamped: Sequence[str] = ()
        self._writer = writer
        self._earlier = earlier or Earlier("")
        # The part that plain chunks go to: its kind, its id, its stream's key.
        self._part: tuple[str, str, str] | None = None
        # The stream of that part if it is one of text, for the path of every token.
        self._text: TextStream | None = None
        self._parts = 0
        # What its model calls used; and the metadata that the agent gave it, which the usage joins in the end.
        self.usage = UsageCount(usage)
        self._metadata: dict[str, Any] = {}
        # Calls of tools that have no result yet.
        self._open_calls: set[str] = set()
        # Where every call of the turn was announced; shared by its messages.
        self._announced = {} if announced is None else announced
        self._started = False
        self._in_step = False
        self._finished = False
        # Its last source failed, and nothing came after: it does not end as if the model had stopped.
        self._abandoned = False

        if left is not None:
            self._take_up(left)

    @property
    def abandoned(self) -> bool:
        """Whether its last source failed or was left, and nothing came after."""
        return self._abandoned

    @property
    def stopped(self) -> bool:
        """Whether the turn is not this attempt's to write any more."""
        return self._writer.stopped

    async def take(self, source: AsyncIterator[OutputChunk]) -> None:
        """Write everything the source yields, until it ends. Raises what the source or the writer raises."""
        writer = self._writer
        clock = writer.flush_timer
        count = 0
        yield_at = time.monotonic() + _YIELD_EVERY_S
        async for chunk in source:
            try:
                if type(chunk) is str:
                    # The path of every token: one comparison, one append to a list.
                    if self._text is not None:
                        self._text.add(chunk)
                    else:
                        await self._add("text", chunk)
                else:
                    await self._take_other(chunk)
                count += 1
                now = time.monotonic()
                if now > yield_at and yield_at < (turned := clock.turned_at + _YIELD_EVERY_S):
                    # It waited: the loop has done other work meanwhile.
                    yield_at = turned
                if writer.backpressured or not count % _YIELD_EVERY or now > yield_at:
                    await writer.drain()
                    if now > yield_at + _SLOW_S:
                        # It blocks. What it gave is to leave, and others are to have their turn, before it continues.
                        for _ in range(_TURNS_AFTER_SLOW):
                            await asyncio.sleep(0)
                    yield_at = time.monotonic() + _YIELD_EVERY_S
            except asyncio.CancelledError as cancelled:
                if not await self._cancelled_in(source, cancelled):
                    return

    async def _cancelled_in(
        self, source: AsyncIterator[OutputChunk], cancelled: asyncio.CancelledError
    ) -> bool:
        """The task was cancelled while a generator waited at a `yield`: the cancellation is raised there.

        A time-out around the `yield` then is one, which it may handle; False when it ends by that. Else raises.
        """
        while isinstance(source, AsyncGenerator) and not self._writer.stopped:
            try:
                await self._writer.caught_up()
                chunk = await source.athrow(cancelled)
            except StopAsyncIteration:
                return False
            try:
                await self._take_other(chunk)
                return True
            except asyncio.CancelledError as again:
                cancelled = again
        raise cancelled

    async def write(self, chunks: Sequence[p.Chunk]) -> None:
        """Write chunks, with the brackets they need, in one step. Raises what stopped the writer."""
        # Before anything is recorded: a chunk that cannot be carried must not leave half a message.
        chunks = [self._with_usage(p.carried_chunk(chunk)) for chunk in chunks]
        ready: list[p.Chunk] = []
        for chunk in chunks:
            if self._finished and not isinstance(chunk, p.ToolApprovalRequest):
                raise InvalidArgument(f"a {chunk.type} chunk came after `finish`")
            self._note_call(chunk)
            ready += [*self._closing_part(), *self._before(chunk), chunk]
            if isinstance(chunk, p.TextStart):
                ready += self._earlier.chunks(chunk.id)
        await self._write_encoded(ready)

    async def write_result(self, result: p.ToolOutputAvailable | p.ToolOutputError) -> None:
        """Write the result of a call; with the last one that was open, the model call is over."""
        is_last = self._in_step and not self._open_calls - {result.tool_call_id}
        await self.write([result, p.FinishStep()] if is_last else [result])

    async def finish(self) -> None:
        """Close open parts and end the message, if it was begun: with `tool-calls` if any is unanswered."""
        if not self._started or self._finished or self._abandoned:
            return
        chunks = self._closing_part()
        if self._in_step:
            chunks.append(p.FinishStep())
        ending = p.Finish(finish_reason="tool-calls" if self._open_calls else "stop")
        chunks.append(self._with_usage(ending))
        self._finished = True
        ops = [*self._encoded(chunks), *self._encoder.cancel()]
        await self._writer.hold([op for op in ops if not isinstance(op, encoder.Append)])

    async def abandon(self) -> None:
        """Close the open parts as cancelled: the source failed, or its scope was left (section 8.7)."""
        self._closing_part()
        self._abandoned = True
        await self._writer.write(self._encoder.cancel())

    def _with_usage(self, chunk: p.Chunk) -> p.Chunk:
        """The end of the message, with what its model calls used; what the agent itself says of that goes first."""
        if not isinstance(chunk, p.Start | p.MessageMetadata | p.Finish):
            return chunk
        given = chunk.message_metadata
        if given is not None and not isinstance(given, dict):
            return chunk
        # What is given replaces what was there before.
        self._metadata = self._metadata if given is None else given
        if not isinstance(chunk, p.Finish) or not self.usage.total:
            return chunk
        metadata = {"usage": self.usage.total.to_json(), **self._metadata}
        return p.Finish(chunk.finish_reason, metadata)

    def _take_up(self, left: LeftBehind) -> None:
        assert isinstance(self._encoder, encoder.Encoder)
        self._started, self._in_step, self._parts = True, left.in_step, left.parts
        self._open_calls.update(left.calls)
        for stream in left.streams:
            key = self._encoder.take_up(stream.kind, stream.stream_id, stream.codec)
            written = self._writer.take_up(key, stream)
            if stream.kind in _STARTS:
                self._part = stream.kind, stream.stream_id, key
                self._text = written if stream.kind == "text" else None

    async def _take_other(self, chunk: Reasoning | p.Chunk | Mapping[str, Any] | str) -> None:
        if isinstance(chunk, Reasoning):
            await self._add("reasoning", _text(chunk.text))
        elif isinstance(chunk, str):
            await self._add("text", _text(chunk))
        else:
            await self.write([self._codec.chunk_from_json(chunk) if isinstance(chunk, Mapping) else chunk])

    async def _add(self, kind: str, chunk: str) -> None:
        """Write a plain chunk; where no part of its kind is open, one is opened with it, and the other kind's closed."""
        if self._part is not None:
            # Another task has opened it, perhaps just now: sources may be piped side by side.
            await self._writer.caught_up()
        if self._part is not None and self._part[0] == kind:
            stream = self._writer.stream(self._part[2])
            stream.add(chunk)
            self._text = stream if kind == "text" else None
            return
        if self._finished:
            raise InvalidArgument("text came after a `finish` chunk")
        part_id = f"{kind}-{self._parts}"
        self._parts += 1
        start = _STARTS[kind](part_id)
        chunks = [*self._closing_part(), *self._before(start), start]
        if kind == "text" and (earlier := self._earlier.take()):
            chunks.append(p.TextDelta(part_id, earlier))
        ops = self._encoded([*chunks, _DELTAS[kind](part_id, chunk)])
        (key,) = [op.stream_key for op in ops if isinstance(op, encoder.Create) and op.stream_key is not None]
        # Before it is written: a caller cancelled meanwhile still finds the part.
        self._part = kind, part_id, key
        await self._write(ops)
        if kind == "text" and self._part is not None and self._part[2] == key:
            self._text = self._writer.stream(key)

    def _closing_part(self) -> list[p.Chunk]:
        if self._part is None:
            return []
        kind, part_id, _ = self._part
        self._part = self._text = None
        return [_ENDS[kind](part_id)]

    def _note_call(self, chunk: p.Chunk) -> None:
        match chunk:
            case p.ToolInputAvailable() if not chunk.provider_executed:
                self._open_calls.add(chunk.tool_call_id)
                self._announced[chunk.tool_call_id] = self
            case p.ToolOutputAvailable() | p.ToolOutputError() | p.ToolOutputDenied():
                self._open_calls.discard(chunk.tool_call_id)

    def _before(self, chunk: p.Chunk) -> list[p.Chunk]:
        """The brackets that are missing in front of a chunk."""
        missing: list[p.Chunk] = []
        if not self._started and not isinstance(chunk, p.Start):
            missing.append(p.Start(message_id=self.message_id))
        self._started = True
        self._abandoned = False
        match chunk:
            case p.StartStep():
                self._in_step = True
            case p.FinishStep():
                self._in_step = False
            case p.Finish() if self._in_step:
                missing.append(p.FinishStep())
                self._in_step = False
            case p.TextStart() | p.ReasoningStart() | p.ToolInputStart() | p.ToolInputAvailable() if (
                not self._in_step
            ):
                missing.append(p.StartStep())
                self._in_step = True
        self._finished = self._finished or isinstance(chunk, p.Finish)
        return missing

    def _encoded(self, chunks: list[p.Chunk]) -> list[encoder.OutputOperation]:
        steers = self._steers()
        if steers != self._stamped:
            self._encoder.answer_steers(steers)
            self._stamped = steers
        return [op for chunk in chunks for op in self._encoder.encode(chunk)]

    async def _write_encoded(self, chunks: list[p.Chunk]) -> None:
        """Operations before a chunk out of sequence are still written: the encoder has recorded them."""
        ops: list[encoder.OutputOperation] = []
        try:
            for chunk in chunks:
                ops += self._encoded([chunk])
        finally:
            await self._write(ops)

    async def _write(self, ops: list[encoder.OutputOperation]) -> None:
        await self._writer.write(ops)


def _text(chunk: object) -> str:
    """The value as `str`. Raises InvalidArgument for any other type."""
    if not isinstance(chunk, str):
        raise InvalidArgument(f"a text is expected, not {type(chunk).__name__}")
    return str.__str__(chunk)
