"""A turn's output as it comes: what was said so far first, then every further chunk (STR-1, REC-3)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from selfhost_transport.turns import headers as h
from selfhost_transport.turns.chunks import Chunk, ReasoningDelta, TextDelta
from selfhost_transport.turns.fold import Projection
from selfhost_transport.turns.nodes import Node

# Chunks a reader may be behind before further text is joined to what waits, so that memory holds the text only.
_JOIN_BEYOND = 256


@dataclass(frozen=True, slots=True)
class StreamReset:
    """Forget the parts received: an attempt was replaced by another. All that holds follows."""


StreamPart: TypeAlias = Chunk | StreamReset


class TurnStream(AsyncIterator[StreamPart]):
    """One reader of a turn. Ends when the turn has ended, whatever its status; then see `turn.status`."""

    def __init__(self, owner: object = None) -> None:
        # The stream's source lives as long as its reader.
        self._owner = owner
        self._parts: deque[StreamPart] = deque()
        # Chunks of text that belong to the last of the waiting parts.
        self._tail: list[str] = []
        self._arrived = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return (
            f"<TurnStream {'ended' if self._ended else 'open'}: use `async for part in` it, or its `text()`>"
        )

    def __aiter__(self) -> TurnStream:
        return self

    async def __anext__(self) -> StreamPart:
        while not self._parts:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        if len(self._parts) == 1:
            self._join_tail()
        return self._parts.popleft()

    async def text(self) -> AsyncIterator[str]:
        """Only the chunks of text, for printing as they come.

        After a `StreamReset` they begin again: `turn.text` is the answer as it stands.
        """
        async for part in self:
            if isinstance(part, TextDelta):
                yield part.delta

    def push(self, part: StreamPart) -> None:
        """Add a part; never waits."""
        if len(self._parts) >= _JOIN_BEYOND and _continues(self._parts[-1], part):
            assert isinstance(part, TextDelta | ReasoningDelta)
            self._tail.append(part.delta)
            return
        self._join_tail()
        self._parts.append(part)
        self._arrived.set()

    def end(self, error: Exception | None = None) -> None:
        """Nothing follows; with an error, reading raises it after the parts that wait."""
        self._ended = True
        self._error = error
        self._arrived.set()

    def _join_tail(self) -> None:
        if self._tail:
            last = self._parts.pop()
            assert isinstance(last, TextDelta | ReasoningDelta)
            self._parts.append(replace(last, delta="".join((last.delta, *self._tail))))
            self._tail = []


def chunks_of(node: Node | None) -> Iterator[Chunk]:
    """Everything the outputs of a turn amount to, as a reader from the start would have seen it."""
    if node is None:
        return
    fold = Projection(node.codec)
    for record in node.records():
        superseded = node.run is not None and node.run.is_superseded(
            record.step_id, record.headers.get(h.STEP_START_SERIAL)
        )
        if record.input is None and not superseded:
            yield from fold.add(record)


def _continues(last: StreamPart, part: StreamPart) -> bool:
    if isinstance(last, TextDelta):
        return isinstance(part, TextDelta) and part.id == last.id
    return isinstance(last, ReasoningDelta) and isinstance(part, ReasoningDelta) and part.id == last.id
