"""A turn as UI message chunks that can be counted: the n-th is the same for every reader, however the deltas came.

Texts are cut at white space, part after part; so the number of chunks that a client has seen says what it has seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from selfhost_transport.turns.ui_stream import ChunkJson, SentChunk, UIMessageStream, delta_json

_WORD: Final = re.compile(r"\S{0,31}\s|\S{32}")
_REPLACED: Final = "the answer was begun again; reload the page to see it"


class CountedStream:
    """The chunks of one turn from number `start` on. It reads what `stream` was sent."""

    def __init__(self, stream: UIMessageStream, start: int = 0) -> None:
        self.count = 0
        """How many chunks there were so far, those before `start` included."""
        self._stream = stream
        self._start = start
        self._attempt = stream.restarts
        # The unit that is being sent, whether it was begun, and how much of its text was sent.
        self._at = 0
        self._begun = False
        self._chars = 0
        self._has_named = False

    def advance(self) -> list[ChunkJson]:
        """What can be sent by now."""
        return self._numbered(self._new(is_over=False))

    def end(self, closing: Iterable[ChunkJson]) -> list[ChunkJson]:
        """What is left, and the chunks that close the stream; the last is always `finish`: it is what a client waits for."""
        rest = [chunk for chunk in closing if chunk["type"] != "finish"]
        last = next(
            (chunk for chunk in closing if chunk["type"] == "finish"),
            {"type": "finish", "finishReason": "error"},
        )
        return self._numbered([*self._new(is_over=True), *rest, last])

    @property
    def is_replaced(self) -> bool:
        """Whether the turn says something else by now than what was counted."""
        return self._stream.restarts != self._attempt

    def replaced(self) -> list[ChunkJson]:
        """Says so."""
        return [{"type": "error", "errorText": _REPLACED}, {"type": "finish", "finishReason": "error"}]

    def _new(self, *, is_over: bool) -> Iterator[ChunkJson]:
        if self._stream.is_behind or self.is_replaced:
            return
        if not self._has_named and (begin := self._stream.beginning) is not None:
            self._has_named = True
            yield begin
        units = self._stream.units
        while self._at < len(units):
            unit = units[self._at]
            if not self._begun:
                self._begun = True
                yield unit.head
            is_closed = is_over or self._is_closed(unit, units)
            yield from self._words(unit, is_closed)
            if not is_closed:
                return
            self._at, self._begun, self._chars = self._at + 1, False, 0

    def _words(self, unit: SentChunk, is_closed: bool) -> Iterator[ChunkJson]:
        text = unit.joined
        while (word := _WORD.match(text, self._chars)) is not None:
            self._chars = word.end()
            yield delta_json(unit.head, word[0])
        if is_closed and self._chars < len(text):
            yield delta_json(unit.head, text[self._chars :])
            self._chars = len(text)

    def _is_closed(self, unit: SentChunk, units: list[SentChunk]) -> bool:
        kind, head = unit.head["type"], unit.head
        if kind not in ("text-start", "reasoning-start", "tool-input-start"):
            return True
        return any(_ends(later.head, head) for later in units[self._at + 1 :])

    def _numbered(self, chunks: Iterable[ChunkJson]) -> list[ChunkJson]:
        found = []
        for chunk in chunks:
            if self.count >= self._start:
                found.append(chunk)
            self.count += 1
        return found


def _ends(head: ChunkJson, begun: dict[str, Any]) -> bool:
    if head["type"] == "finish-step":
        return True
    if begun["type"] == "tool-input-start":
        return bool(head.get("toolCallId") == begun["toolCallId"])
    end = begun["type"].replace("-start", "-end")
    return (head["type"], head.get("id")) == (end, begun["id"])
