"""A turn as a UI message stream over plain HTTP, as `useChat` reads it without any SDK of a session.

Only chunk types and fields that every client from `ai` 6.0.1 on accepts are made. One turn is one message with one id,
through all its suspensions and attempts; a stream can begin anew at any time, and says the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.fold import Projection
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.turns.ui import Approval
from selfhost_transport.turns.values import ABSENT, Json

ChunkJson: TypeAlias = dict[str, Any]

_GROWS: Final = (c.TextDelta, c.ReasoningDelta, c.ToolInputDelta)
_REASONS: Final = frozenset({"stop", "length", "content-filter", "tool-calls", "error", "other"})
# What surrounds a message is written by the stream itself, once.
_AROUND: Final = (c.Start, c.Finish, c.Abort, c.Error, c.MessageMetadata, c.Native)
CANCELLED: Final[dict[str, Json]] = {"status": "cancelled"}
"""Metadata of an answer that was stopped."""


def chunks_of_turn(node: Node | None) -> Iterator[tuple[str, c.Chunk]]:
    """Everything a turn amounts to so far, clients' answers to its calls included, with the message each chunk is of."""
    called: set[str] = set()
    for record, chunk in contents_of_turn(node):
        if chunk is not None:
            if isinstance(chunk, c.ToolInputStart | c.ToolInputAvailable):
                called.add(chunk.tool_call_id)
            yield record.codec_message_id, chunk
        elif record.input is not None:
            answer = _answer_chunk(record.input)
            if answer is not None and answer.tool_call_id in called:
                yield record.codec_message_id, answer


def contents_of_turn(node: Node | None) -> Iterator[tuple[Record, c.Chunk | None]]:
    """The records of a turn that count, in order: of output with each of its chunks, of an input with None."""
    if node is None:
        return
    fold = Projection(node.codec)
    for record in node.records():
        if record.input is not None:
            fold.add(record)
            yield record, None
        elif node.run is None or not node.run.is_superseded(
            record.step_id, record.headers.get(h.STEP_START_SERIAL)
        ):
            for chunk in fold.add(record):
                yield record, chunk


def approvals_of(node: Node) -> dict[str, Approval]:
    """What people said to the calls of a turn that had to be allowed, by call."""
    asked: dict[str, str] = {}
    found: dict[str, Approval] = {}
    for record in node.records():
        for chunk in record.chunks:
            if isinstance(chunk, c.ToolApprovalRequest):
                asked[chunk.tool_call_id] = chunk.approval_id
        event = record.input
        if isinstance(event, d.ApprovalAnswered) and event.tool_call_id not in found:
            found[event.tool_call_id] = Approval(
                asked.get(event.tool_call_id, ""), event.approved, event.reason
            )
    return found


def _answer_chunk(
    event: d.InputEvent,
) -> c.ToolOutputAvailable | c.ToolOutputError | c.ToolOutputDenied | None:
    match event:
        case d.ToolResolved():
            return c.ToolOutputAvailable(event.tool_call_id, None if event.output is ABSENT else event.output)
        case d.ToolFailed():
            return c.ToolOutputError(event.tool_call_id, event.text)
        case d.ApprovalAnswered() if not event.approved:
            return c.ToolOutputDenied(event.tool_call_id)
    return None


@dataclass(slots=True)
class SentChunk:
    """A chunk that was sent, and the text that grew on it."""

    head: ChunkJson
    text: list[str] = field(default_factory=list)

    @property
    def joined(self) -> str:
        """All of the text."""
        if len(self.text) > 1:
            self.text = ["".join(self.text)]
        return self.text[0] if self.text else ""


class UIMessageStream:
    """What one reader was sent of one turn, and what it is to be sent next.

    `skip`: how many chunks of the turn the reader has already, for one that continues a message.
    """

    def __init__(self, turn_id: str, *, skip: int = 0) -> None:
        self._turn_id = turn_id
        self._skip = skip
        self._message_id: str | None = None
        self._sent: list[SentChunk] = []
        # Units that grow, by their kind and id.
        self._growing: dict[tuple[str, str], SentChunk] = {}
        self._open: dict[str, str] = {}
        self._in_step = False
        self._finish_reason = "stop"
        self.restarts = 0
        """How often an attempt was replaced by one that says something else."""
        # An attempt was replaced, and the new one has not said yet what the reader has seen.
        self._is_behind = False

    @property
    def is_behind(self) -> bool:
        """Whether `replay` is wanted instead of `feed`: what was sent is not what the turn consists of."""
        return self._is_behind

    @property
    def units(self) -> list[SentChunk]:
        """What was sent."""
        return self._sent

    @property
    def beginning(self) -> ChunkJson | None:
        """The first chunk, once the message has a name."""
        if self._message_id is None:
            return None
        metadata = {"turnId": self._turn_id}
        return {"type": "start", "messageId": self._message_id, "messageMetadata": metadata}

    @property
    def state(self) -> tuple[object, ...]:
        """Two streams of one turn that were brought up to date, with equal states, go on alike."""
        return self._message_id, len(self._sent), tuple(self._open), self._in_step, self._finish_reason

    def replay(self, chunks: Iterable[tuple[str, c.Chunk]]) -> list[ChunkJson]:
        """Bring the reader to where the turn is. Chunks of one text leave as one."""
        given = list(chunks)
        units = _units(chunk for _, chunk in given[self._skip :])
        out = self._begin(given[0][0]) if given and self._message_id is None else []
        self._take_reason(chunk for _, chunk in given)
        common = self._common(units)
        if common is None:
            return out + self._start_over(units)
        self._is_behind = common < len(self._sent)
        if self._is_behind:
            return out
        if self._sent:
            last = len(self._sent)
            for unit, now in zip(self._sent, units, strict=False):
                tail = now.joined[len(unit.joined) :]
                if tail:
                    out.append(delta_json(unit.head, tail))
                    unit.text.append(tail)
            units = units[last:]
        for unit in units:
            out += self._send_unit(unit)
        return out

    def feed(self, codec_message_id: str, chunk: c.Chunk) -> list[ChunkJson]:
        """One more chunk, as it arrived."""
        self._take_reason((chunk,))
        if isinstance(chunk, _GROWS):
            unit = self._growing.get(_key(chunk))
            if unit is None:
                return []
            text = chunk.input_text_delta if isinstance(chunk, c.ToolInputDelta) else chunk.delta
            unit.text.append(text)
            return [delta_json(unit.head, text)]
        if isinstance(chunk, c.Data) and chunk.transient:
            return [*self._begin(codec_message_id), c.chunk_to_json(chunk)]
        out = self._begin(codec_message_id)
        for unit in _units((chunk,)):
            out += self._send_unit(unit)
        return out

    def end(self, status: TurnStatus, error: str | None = None) -> list[ChunkJson]:
        """The turn has ended, or waits for people: what closes the stream."""
        if status is TurnStatus.FAILED:
            return [*self._close_parts(), {"type": "error", "errorText": error or "the turn failed"}]
        closing = [*self._close_parts(), *self._close_step()]
        if status is TurnStatus.CANCELLED:
            return [*closing, *self._cancelled()]
        reason = "tool-calls" if status is TurnStatus.SUSPENDED else self._finish_reason
        return [*closing, {"type": "finish", "finishReason": reason}]

    def _cancelled(self) -> list[ChunkJson]:
        # Without a step after the last finished tool, a page that sends by itself would ask to continue.
        if self._message_id is None:
            return [{"type": "abort"}, {"type": "finish", "finishReason": "other"}]
        return [
            {"type": "abort"},
            {"type": "start-step"},
            {"type": "finish", "finishReason": "other", "messageMetadata": dict(CANCELLED)},
        ]

    def _begin(self, codec_message_id: str) -> list[ChunkJson]:
        if self._message_id is not None:
            return []
        self._message_id = codec_message_id
        return [begin] if (begin := self.beginning) is not None else []

    def _common(self, units: list[SentChunk]) -> int | None:
        """How many of the sent units the turn still has; None: it says something else."""
        for number, unit in enumerate(self._sent):
            if number == len(units):
                return number
            now = units[number]
            if now.head != unit.head:
                return None
            if not now.joined.startswith(unit.joined):
                is_last = number == len(units) - 1
                return number if is_last and unit.joined.startswith(now.joined) else None
        return len(self._sent)

    def _start_over(self, units: list[SentChunk]) -> list[ChunkJson]:
        out = [*self._close_parts(), *self._close_step()]
        self._sent, self._growing, self._is_behind = [], {}, False
        self.restarts += 1
        for unit in units:
            out += self._send_unit(unit)
        return out

    def _send_unit(self, unit: SentChunk) -> list[ChunkJson]:
        kind, out = unit.head["type"], list[ChunkJson]()
        if kind == "finish-step":
            out += self._close_parts()
            self._in_step = False
        elif kind == "start-step":
            self._in_step = True
        elif kind in ("text-start", "reasoning-start"):
            self._open[unit.head["id"]] = kind
        elif kind in ("text-end", "reasoning-end"):
            self._open.pop(unit.head["id"], None)
        self._sent.append(unit)
        if (key := _grows(unit.head)) is not None:
            self._growing[key] = unit
        out.append(unit.head)
        if unit.text:
            out.append(delta_json(unit.head, unit.joined))
        return out

    def _close_parts(self) -> list[ChunkJson]:
        closed = [
            {"type": kind.replace("-start", "-end"), "id": part_id} for part_id, kind in self._open.items()
        ]
        self._open = {}
        return closed

    def _close_step(self) -> list[ChunkJson]:
        was, self._in_step = self._in_step, False
        return [{"type": "finish-step"}] if was else []

    def _take_reason(self, chunks: Iterable[c.Chunk]) -> None:
        for chunk in chunks:
            if isinstance(chunk, c.Finish) and chunk.finish_reason is not None:
                self._finish_reason = chunk.finish_reason if chunk.finish_reason in _REASONS else "other"


def _units(chunks: Iterable[c.Chunk]) -> list[SentChunk]:
    units: list[SentChunk] = []
    growing: dict[tuple[str, str], SentChunk] = {}
    for chunk in chunks:
        if isinstance(chunk, _GROWS):
            if (grown := growing.get(_key(chunk))) is not None:
                grown.text.append(
                    chunk.input_text_delta if isinstance(chunk, c.ToolInputDelta) else chunk.delta
                )
            continue
        if isinstance(chunk, c.Data) and chunk.transient:
            continue
        if (head := _head(chunk)) is not None:
            unit = SentChunk(head)
            units.append(unit)
            if (key := _grows(head)) is not None:
                growing[key] = unit
    return units


def _head(chunk: c.Chunk) -> ChunkJson | None:
    """The chunk as JSON; None for one that surrounds a message, unless it carries the application's metadata."""
    if isinstance(chunk, _AROUND):
        metadata = getattr(chunk, "message_metadata", None)
        return None if metadata is None else {"type": "message-metadata", "messageMetadata": metadata}
    return c.chunk_to_json(chunk)


def _key(chunk: c.TextDelta | c.ReasoningDelta | c.ToolInputDelta) -> tuple[str, str]:
    if isinstance(chunk, c.ToolInputDelta):
        return "tool-input-start", chunk.tool_call_id
    return chunk.type.replace("-delta", "-start"), chunk.id


def _grows(head: ChunkJson) -> tuple[str, str] | None:
    kind = head["type"]
    if kind == "tool-input-start":
        return kind, head["toolCallId"]
    return (kind, head["id"]) if kind in ("text-start", "reasoning-start") else None


def delta_json(head: ChunkJson, text: str) -> ChunkJson:
    """More text of what a chunk began."""
    if head["type"] == "tool-input-start":
        return {"type": "tool-input-delta", "toolCallId": head["toolCallId"], "inputTextDelta": text}
    return {"type": head["type"].replace("-start", "-delta"), "id": head["id"], "delta": text}
