"""A turn's output as items of OpenAI's Responses: the list only ever grows at its end, whatever attempts replace.

The numbers of the events count in this list, so it must not take back what a reader may have. An attempt that repeats
what the one before it said continues the same items; where it says something else, the old item stays, incomplete, and
a new one follows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.record import Record, TextBuffer
from selfhost_transport.turns.run_spans import RunSpan
from selfhost_transport.turns.values import as_text

_REFUSAL: Final = "refusal"


class ResponseKind(Enum):
    """What an item is; the value begins its id."""

    TEXT = "msg"
    REFUSAL = "rfs"
    REASONING = "rs"
    CALL = "fc"
    RESULT = "fco"
    APPROVAL = "mcpr"


@dataclass(slots=True, eq=False)
class ResponseUnit:
    """One item. `key`: its call; `name`: the tool of a call, the approval's id of an approval."""

    kind: ResponseKind
    codec_message_id: str
    key: str = ""
    name: str = ""
    closed: bool = False
    # Not all that was to be said: the turn or its attempt ended within.
    incomplete: bool = False
    # Closed as cancelled by its attempt: another one may go on with it.
    cancelled: bool = False
    sources: list[TextBuffer] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What it says, as far as any attempt has said it."""
        if len(self.sources) == 1:
            return str(self.sources[0])
        return max((str(source) for source in self.sources), key=len, default="")

    def continues_as(self, newer: ResponseUnit) -> bool:
        """Whether an item of a newer attempt says the same, as far as both go."""
        if (self.kind, self.key, self.name) != (newer.kind, newer.key, newer.name):
            return False
        had, has = self.text, newer.text
        if newer.closed:
            return has == had if self.closed else has.startswith(had)
        return had.startswith(has) or (has.startswith(had) and not self.closed)

    def join(self, newer: ResponseUnit) -> None:
        """Go on with an item of a newer attempt."""
        self.sources += newer.sources
        self.closed, self.cancelled = self.closed or newer.closed, newer.cancelled

    def give_up(self) -> None:
        """Close it where it is, if it is open."""
        if not self.closed:
            self.closed = self.incomplete = True


@dataclass(slots=True)
class _Attempt:
    """The items of one attempt of a step; `before`: those of the attempt that it replaces."""

    before: list[ResponseUnit]
    items: list[ResponseUnit] = field(default_factory=list)
    diverged: bool = False


class ResponseUnits:
    """The items of the part of a turn that a response is. Texts grow by themselves; anything else wants a new list."""

    def __init__(self, node: Node | None, span: RunSpan) -> None:
        self.all: list[ResponseUnit] = []
        self.finish_reason: str | None = None
        self.metadata: dict[str, Any] = {}
        # Whether the turn has gone on since this part ended.
        self.is_continued = False
        self._attempts: dict[tuple[str | None, str | None], _Attempt] = {}
        self._newest: dict[str | None, _Attempt] = {}
        for record in node.records() if node is not None else ():
            is_later = span.until is not None and record.serial is not None and record.serial > span.until
            self.is_continued |= is_later and (record.input is not None or record.stream is not None)
            if record.input is None and not record.deleted and span.holds(record.serial):
                self._take(node, record)

    @property
    def is_behind(self) -> bool:
        """Whether an attempt repeats what another said before: whether it goes on saying so has to be looked at."""
        return any(
            len(unit.sources) > 1 and str(unit.sources[-1]) != unit.text
            for attempt in self._newest.values()
            for unit in attempt.items
        )

    def call_of(self, unit: ResponseUnit) -> ResponseUnit | None:
        """The call that an approval is asked for."""
        return next((one for one in self.all if one.kind is ResponseKind.CALL and one.key == unit.key), None)

    def _take(self, node: Node | None, record: Record) -> None:
        attempt = self._attempt(record)
        if record.stream is not None and node is not None:
            unit = _streamed(record, node.codec.decode_stream_start(record.headers))
            if unit is not None:
                self._add(attempt, unit)
            return
        for chunk in record.chunks:
            if isinstance(chunk, c.Finish | c.MessageMetadata):
                self._note(chunk)
            for unit in _discrete(record.codec_message_id, chunk):
                known = any(
                    u.kind is unit.kind is ResponseKind.CALL and u.key == unit.key for u in attempt.items
                )
                if not known:
                    self._add(attempt, unit)

    def _attempt(self, record: Record) -> _Attempt:
        key = record.step_id, record.headers.get(h.STEP_START_SERIAL)
        found = self._attempts.get(key)
        if found is None:
            before = self._newest.get(record.step_id)
            found = self._attempts[key] = _Attempt(before.items if before is not None else [])
            self._newest[record.step_id] = found
        return found

    def _add(self, attempt: _Attempt, unit: ResponseUnit) -> None:
        at = len(attempt.items)
        for earlier in attempt.items[-1:]:
            if earlier.cancelled:
                earlier.give_up()
        if not attempt.diverged and at < len(attempt.before):
            old = attempt.before[at]
            if old.continues_as(unit):
                old.join(unit)
                attempt.items.append(old)
                return
            for left in attempt.before[at:]:
                left.give_up()
        attempt.diverged = True
        attempt.items.append(unit)
        self.all.append(unit)

    def _note(self, chunk: c.Finish | c.MessageMetadata) -> None:
        if isinstance(chunk, c.Finish) and chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason
        if isinstance(chunk.message_metadata, dict):
            self.metadata |= chunk.message_metadata


def _streamed(record: Record, start: object) -> ResponseUnit | None:
    buffer = record.stream
    match start:
        case c.TextStart():
            kind = ResponseKind.REFUSAL if record.headers.kind == _REFUSAL else ResponseKind.TEXT
            unit = ResponseUnit(kind, record.codec_message_id)
        case c.ReasoningStart():
            unit = ResponseUnit(ResponseKind.REASONING, record.codec_message_id)
        case c.ToolInputStart():
            unit = ResponseUnit(
                ResponseKind.CALL, record.codec_message_id, start.tool_call_id, start.tool_name
            )
        case _:
            return None
    unit.sources = [buffer] if buffer is not None else []
    unit.closed, unit.cancelled = record.status == h.COMPLETE, record.status == h.CANCELLED
    return unit


def _discrete(message: str, chunk: c.Chunk) -> list[ResponseUnit]:
    """The items that a single chunk is; the whole of them is known."""
    match chunk:
        case c.ToolInputAvailable():
            return [_call(message, chunk)]
        case c.ToolInputError():
            return [
                _call(message, chunk),
                _result(message, chunk.tool_call_id, chunk.error_text, failed=True),
            ]
        case c.ToolOutputAvailable() if not chunk.preliminary:
            return [_result(message, chunk.tool_call_id, as_text(chunk.output))]
        case c.ToolOutputError():
            return [_result(message, chunk.tool_call_id, chunk.error_text, failed=True)]
        case c.ToolOutputDenied():
            return [_result(message, chunk.tool_call_id, "denied", failed=True)]
        case c.ToolApprovalRequest():
            key, name = chunk.tool_call_id, chunk.approval_id
            return [ResponseUnit(ResponseKind.APPROVAL, message, key, name, closed=True)]
    return []


def _call(message: str, chunk: c.ToolInputAvailable | c.ToolInputError) -> ResponseUnit:
    text = as_text(chunk.input)
    return ResponseUnit(
        ResponseKind.CALL,
        message,
        chunk.tool_call_id,
        chunk.tool_name,
        closed=True,
        sources=[TextBuffer(text)],
    )


def _result(message: str, call: str, text: str, *, failed: bool = False) -> ResponseUnit:
    return ResponseUnit(
        ResponseKind.RESULT, message, call, closed=True, incomplete=failed, sources=[TextBuffer(text)]
    )
