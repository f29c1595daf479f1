"""Bookkeeping that every adapter needs: which part of the answer is open, which tool calls are being written."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.values import Absent, Json, from_text

_UNREADABLE = "The model wrote arguments that are not a JSON object."


@dataclass(slots=True)
class _Call:
    name: str
    executed: bool | None
    chunks: list[str] = field(default_factory=list)


class Parts:
    """Makes chunks of deltas. Text and reasoning are one part at a time; tool calls may be written side by side."""

    def __init__(self) -> None:
        # Calls with complete arguments that await an answer.
        self.calls: list[p.ToolInputAvailable] = []
        # The open part: its kind and the provider's name for it, then the id it has in the message.
        self._open: tuple[str, Hashable] | None = None
        self._id = ""
        self._count = 0
        self._writing: dict[str, _Call] = {}

    def text(self, key: Hashable, delta: str) -> list[p.Chunk]:
        """More of the answer; `key` is the provider's name for the part."""
        if not delta:
            return []
        if self._open == ("text", key):
            return [p.TextDelta(self._id, delta)]
        ended = self._switch("text", key)
        return [*ended, p.TextStart(self._id), p.TextDelta(self._id, delta)]

    def reasoning(self, key: Hashable, delta: str) -> list[p.Chunk]:
        """More of the model's reasoning."""
        if not delta:
            return []
        if self._open == ("reasoning", key):
            return [p.ReasoningDelta(self._id, delta)]
        ended = self._switch("reasoning", key)
        return [*ended, p.ReasoningStart(self._id), p.ReasoningDelta(self._id, delta)]

    def end(self, metadata: Json = None) -> list[p.Chunk]:
        """Close the open part of text or reasoning, if there is one."""
        if self._open is None:
            return []
        kind, self._open = self._open[0], None
        return [p.TextEnd(self._id, metadata) if kind == "text" else p.ReasoningEnd(self._id, metadata)]

    def call(self, call_id: str, name: str, *, executed: bool | None = None) -> list[p.Chunk]:
        """A tool call begins; `executed`: the provider runs it itself."""
        self._writing[call_id] = _Call(name, executed)
        return [*self.end(), p.ToolInputStart(call_id, name, provider_executed=executed)]

    def arguments(self, call_id: str, delta: str) -> list[p.Chunk]:
        """More of a call's arguments."""
        if not delta or call_id not in self._writing:
            return []
        self._writing[call_id].chunks.append(delta)
        return [p.ToolInputDelta(call_id, delta)]

    def call_ready(self, call_id: str, whole: str | None = None) -> list[p.Chunk]:
        """A call's arguments are complete; `whole` is all of them, where a provider repeats them at the end."""
        call = self._writing.pop(call_id, None)
        if call is None:
            return []
        chunks: list[p.Chunk] = []
        if whole and not call.chunks:
            call.chunks.append(whole)
            chunks.append(p.ToolInputDelta(call_id, whole))
        value = from_text("".join(call.chunks) or "{}")
        if isinstance(value, Absent) or not isinstance(value, dict):
            error = p.ToolInputError(call_id, call.name, _UNREADABLE, provider_executed=call.executed)
            return [*chunks, error]
        ready = p.ToolInputAvailable(call_id, call.name, value, provider_executed=call.executed)
        if not call.executed:
            self.calls.append(ready)
        return [*chunks, ready]

    def answered(self, call_id: str) -> None:
        """A call already has its result: it awaits none."""
        self.calls = [call for call in self.calls if call.tool_call_id != call_id]

    def end_all(self) -> list[p.Chunk]:
        """The model call is over."""
        chunks = self.end()
        for call_id in list(self._writing):
            chunks += self.call_ready(call_id)
        return chunks

    def _switch(self, kind: str, key: Hashable) -> list[p.Chunk]:
        ended = self.end()
        self._open = kind, key
        self._id = f"{kind}-{self._count}"
        self._count += 1
        return ended
