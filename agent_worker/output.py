"""One assistant message: what an agent yields becomes chunks, chunks become operations (ai-transport 4, 5.1)."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from agent_worker.writer import TextStream, TurnWriter
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import encoder
from selfhost_transport.turns import parts as p
from selfhost_transport.turns.context import TurnContext

_YIELD_EVERY = 64
"""Tokens after which a source that never waits lets the loop do its other work (renewals, cancels)."""


@dataclass(slots=True, frozen=True)
class Reasoning:
    """A piece of the model's reasoning, shown apart from the answer (COT-1)."""

    text: str


Piece: TypeAlias = str | Reasoning | p.Chunk | Mapping[str, Any]
"""What an agent may yield: text, reasoning, a chunk, or a chunk in its JSON form."""

_STARTS: dict[str, type[p.TextStart | p.ReasoningStart]] = {
    "text": p.TextStart,
    "reasoning": p.ReasoningStart,
}
_ENDS: dict[str, type[p.TextEnd | p.ReasoningEnd]] = {"text": p.TextEnd, "reasoning": p.ReasoningEnd}


class Output:
    """One pass of a turn (ai-transport section 1): one assistant message, opened by its first piece.

    Plain text is put into a text part that is opened and closed as needed; the brackets that a source does not
    send itself (`start`, `start-step`, `finish-step`, `finish`) are added.
    """

    def __init__(self, ctx: TurnContext, writer: TurnWriter, step_start_serial: str) -> None:
        self.message_id = str(uuid.uuid4())
        self._encoder = encoder.Encoder(ctx, self.message_id, step_start_serial)
        self._writer = writer
        # The part that plain pieces go to: its kind, its id, its stream.
        self._part: tuple[str, str, TextStream] | None = None
        self._parts = 0
        self._started = False
        self._in_step = False
        self._finished = False

    async def take(self, source: AsyncIterator[Piece]) -> None:
        """Write everything the source yields, until it ends. Raises what the source or the writer raises."""
        writer = self._writer
        count = 0
        text: TextStream | None = None
        async for piece in source:
            if type(piece) is str:
                # The path of every token: one comparison, one append to a list.
                if text is None:
                    text = await self._open("text")
                text.add(piece)
            else:
                text = None
                await self._take_other(piece)
            count += 1
            if writer.crowded or not count % _YIELD_EVERY:
                await writer.room()

    async def finish(self) -> None:
        """Close what is open and end the message, if it was ever begun."""
        if not self._started or self._finished:
            return
        chunks = self._closing_part()
        if self._in_step:
            chunks.append(p.FinishStep())
        chunks.append(p.Finish(finish_reason="stop"))
        await self._write([*self._encoded(chunks), *self._encoder.cancel()])

    async def abandon(self) -> None:
        """Close the open parts as cancelled: the source failed, or its scope was left (section 8.7)."""
        self._part = None
        await self._writer.write(self._encoder.cancel())

    async def _take_other(self, piece: Reasoning | p.Chunk | Mapping[str, Any] | str) -> None:
        if isinstance(piece, Reasoning):
            (await self._open("reasoning")).add(piece.text)
        elif isinstance(piece, str):
            (await self._open("text")).add(piece)
        else:
            chunk = p.chunk_from_json(piece) if isinstance(piece, Mapping) else piece
            if self._finished:
                raise InvalidArgument(f"a {chunk.type} chunk came after `finish`")
            await self._write(self._encoded([*self._closing_part(), *self._before(chunk), chunk]))

    async def _open(self, kind: str) -> TextStream:
        """The stream for plain pieces of a kind; opening one closes that of the other kind."""
        if self._part is not None and self._part[0] == kind:
            return self._part[2]
        if self._finished:
            raise InvalidArgument("text came after a `finish` chunk")
        part_id = f"{kind}-{self._parts}"
        self._parts += 1
        start = _STARTS[kind](part_id)
        ops = self._encoded([*self._closing_part(), *self._before(start), start])
        await self._write(ops)
        opened = ops[-1]
        assert isinstance(opened, encoder.Create) and opened.stream_key is not None
        stream = self._writer.stream(opened.stream_key)
        self._part = kind, part_id, stream
        return stream

    def _closing_part(self) -> list[p.Chunk]:
        if self._part is None:
            return []
        kind, part_id, _ = self._part
        self._part = None
        return [_ENDS[kind](part_id)]

    def _before(self, chunk: p.Chunk) -> list[p.Chunk]:
        """The brackets that are missing in front of a chunk."""
        missing: list[p.Chunk] = []
        if not self._started and not isinstance(chunk, p.Start):
            missing.append(p.Start(message_id=self.message_id))
        self._started = True
        match chunk:
            case p.StartStep():
                self._in_step = True
            case p.FinishStep():
                self._in_step = False
            case p.Finish() if self._in_step:
                missing.append(p.FinishStep())
                self._in_step = False
            case p.TextStart() | p.ReasoningStart() | p.ToolInputStart() if not self._in_step:
                missing.append(p.StartStep())
                self._in_step = True
        self._finished = isinstance(chunk, p.Finish)
        return missing

    def _encoded(self, chunks: list[p.Chunk]) -> list[encoder.Op]:
        return [op for chunk in chunks for op in self._encoder.encode(chunk)]

    async def _write(self, ops: list[encoder.Op]) -> None:
        await self._writer.write(ops)
