"""A turn's output as AG-UI knows it: messages, reasoning, calls, steps and single events, in the order of the log.

The list depends on the log only. A reader's cursor in it is the same on every gateway.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias

import orjson

from selfhost_transport.turns import chunks as c
from selfhost_transport.turns.values import ABSENT, Absent, Json, as_text

EventJson: TypeAlias = dict[str, Any]

STEP_FINISHED: Final = "STEP_FINISHED"
"""The event that ends a step: a unit of its own, since what the step holds comes before it."""


STATE_SNAPSHOT: Final = "STATE_SNAPSHOT"
STATE_DELTA: Final = "STATE_DELTA"
ENCRYPTED_VALUE: Final = "REASONING_ENCRYPTED_VALUE"
MAX_CONTENT: Final = 4_194_304
"""The longest result of a tool that is shown, in bytes: clients refuse an event of more than 10 MB."""
_ENCRYPTED: Final = ("signature", "redactedData", "reasoningEncryptedContent", "thoughtSignature")


class AguiKind(Enum):
    """What a unit is; all but EVENT have a beginning and an end on the wire."""

    TEXT = "text"
    REASONING = "reasoning"
    CALL = "call"
    STEP = "step"
    EVENT = "event"


@dataclass(slots=True, eq=False)
class AguiUnit:
    """One thing that a turn said. `id`: that of the message, the reasoning, the call or the step on the wire."""

    kind: AguiKind
    id: str
    # The message of the log that it is part of.
    codec_message_id: str
    # Of a call: the tool's name.
    name: str = ""
    event: EventJson = field(default_factory=dict)
    chunks: list[str] = field(default_factory=list)
    closed: bool = False

    @property
    def text(self) -> str:
        """All of its text."""
        if len(self.chunks) > 1:
            self.chunks = ["".join(self.chunks)]
        return self.chunks[0] if self.chunks else ""

    @property
    def checksum(self) -> int:
        """Of everything but its text."""
        named = [self.kind.value, self.id, self.codec_message_id, self.name, self.event]
        return zlib.crc32(orjson.dumps(named, option=orjson.OPT_SORT_KEYS))


class AguiUnits:
    """The units of some chunks. Give the chunks in the order of the log, or as they arrive: the list is the same."""

    def __init__(self, chunks: Iterable[tuple[str, c.Chunk]] = ()) -> None:
        self.all: list[AguiUnit] = []
        self._growing: dict[tuple[AguiKind, str, str], AguiUnit] = {}
        self._calls: dict[str, AguiUnit] = {}
        self._open_step: AguiUnit | None = None
        self._steps = 0
        # How many reasoning units each message has.
        self._reasonings: dict[str, int] = {}
        for codec_message_id, chunk in chunks:
            self.add(codec_message_id, chunk)

    def add(self, message: str, chunk: c.Chunk) -> list[AguiUnit]:
        """Take one chunk; the units that it began or changed."""
        match chunk:
            case c.TextStart():
                return [
                    self._begin((AguiKind.TEXT, message, chunk.id), AguiUnit(AguiKind.TEXT, message, message))
                ]
            case c.ReasoningStart():
                number = self._reasonings[message] = self._reasonings.get(message, 0) + 1
                unit = AguiUnit(AguiKind.REASONING, f"{message}:r{number}", message)
                return [self._begin((AguiKind.REASONING, message, chunk.id), unit)]
            case c.TextDelta():
                return _grown(self._growing.get((AguiKind.TEXT, message, chunk.id)), chunk.delta)
            case c.ReasoningDelta():
                return _grown(self._growing.get((AguiKind.REASONING, message, chunk.id)), chunk.delta)
            case c.TextEnd():
                return _closed(self._growing.get((AguiKind.TEXT, message, chunk.id)))
            case c.ReasoningEnd():
                thought = self._growing.get((AguiKind.REASONING, message, chunk.id))
                return [*_closed(thought), *self._encrypted(thought, chunk)]
            case c.StartStep():
                self._steps += 1
                self._open_step = AguiUnit(AguiKind.STEP, f"step-{self._steps}", message)
                return [self._added(self._open_step)]
            case c.FinishStep():
                step, self._open_step = self._open_step, None
                if step is None:
                    return []
                event = {"type": STEP_FINISHED, "stepName": step.id}
                return [self._added(AguiUnit(AguiKind.EVENT, step.id, message, event=event))]
            case c.Data() if chunk.transient:
                return []
        return self._add_tool(message, chunk)

    def _encrypted(self, unit: AguiUnit | None, chunk: c.ReasoningEnd) -> list[AguiUnit]:
        """What the provider wants to see again, unread, with the next request."""
        value = _encrypted_value(chunk.provider_metadata)
        if unit is None or value is None:
            return []
        event = {
            "type": ENCRYPTED_VALUE,
            "subtype": "message",
            "entityId": unit.id,
            "encryptedValue": value,
        }
        return [self._added(AguiUnit(AguiKind.EVENT, unit.id, unit.codec_message_id, event=event))]

    def _add_tool(self, message: str, chunk: c.Chunk) -> list[AguiUnit]:
        match chunk:
            case c.ToolInputStart():
                return [self._call(message, chunk.tool_call_id, chunk.tool_name)]
            case c.ToolInputDelta():
                return _grown(self._calls.get(chunk.tool_call_id), chunk.input_text_delta)
            case c.ToolInputAvailable():
                return self._complete_call(message, chunk)
            case c.ToolInputError():
                changed = self._complete_call(message, chunk)
                event = _result_event(chunk.tool_call_id, chunk.error_text, error=True)
                return [
                    *changed,
                    self._added(AguiUnit(AguiKind.EVENT, chunk.tool_call_id, message, event=event)),
                ]
        shown = event_of(chunk)
        if shown is None:
            return []
        return [self._added(AguiUnit(AguiKind.EVENT, shown.get("toolCallId", ""), message, event=shown))]

    def _complete_call(self, message: str, chunk: c.ToolInputAvailable | c.ToolInputError) -> list[AguiUnit]:
        unit = self._calls.get(chunk.tool_call_id) or self._call(message, chunk.tool_call_id, chunk.tool_name)
        if unit.closed:
            # An approved call is sent again when it runs.
            return []
        if not any(unit.chunks) and chunk.input is not ABSENT:
            unit.chunks.append(_text_or_null(chunk.input))
        unit.closed = True
        return [unit]

    def _call(self, message: str, call_id: str, name: str) -> AguiUnit:
        unit = self._calls[call_id] = self._added(AguiUnit(AguiKind.CALL, call_id, message, name))
        return unit

    def _begin(self, key: tuple[AguiKind, str, str], unit: AguiUnit) -> AguiUnit:
        self._growing[key] = unit
        return self._added(unit)

    def _added(self, unit: AguiUnit) -> AguiUnit:
        self.all.append(unit)
        return unit


def event_of(chunk: c.Chunk) -> EventJson | None:
    """The one event that says what a chunk says; None for chunks that are sent otherwise, or not at all."""
    match chunk:
        case c.ToolOutputAvailable() if chunk.preliminary:
            value = {"toolCallId": chunk.tool_call_id, "output": _value(chunk.output)}
            return {"type": "CUSTOM", "name": "tool-output-preliminary", "value": value}
        case c.ToolOutputAvailable():
            return _result_event(chunk.tool_call_id, _text_or_null(chunk.output))
        case c.ToolOutputError():
            return _result_event(chunk.tool_call_id, chunk.error_text, error=True)
        case c.ToolOutputDenied():
            return _result_event(chunk.tool_call_id, "denied", denied=True)
        case c.Data(name="data-state-snapshot"):
            return {"type": STATE_SNAPSHOT, "snapshot": _value(chunk.data)}
        case c.Data(name="data-state-delta") if isinstance(chunk.data, list):
            return {"type": STATE_DELTA, "delta": chunk.data}
        case c.Data():
            kept = {"id": chunk.id} if chunk.id is not None else {}
            noted = {"metadata": kept} if kept else {}
            name = chunk.name.removeprefix(c.DATA_PREFIX)
            return {"type": "CUSTOM", "name": name, "value": _value(chunk.data), **noted}
        case c.SourceUrl() | c.SourceDocument() | c.File():
            return {"type": "CUSTOM", "name": chunk.type, "value": c.chunk_to_json(chunk)}
    return None


def _result_event(call_id: str, content: str, *, error: bool = False, denied: bool = False) -> EventJson:
    size = len(content.encode("utf-8", "surrogatepass"))
    if size > MAX_CONTENT:
        content = f"[a result of {size:,} bytes: read it from the session's messages]"
    event = {
        "type": "TOOL_CALL_RESULT",
        "messageId": f"{call_id}:result",
        "toolCallId": call_id,
        "content": content,
        "role": "tool",
    }
    noted = {**({"error": True} if error else {}), **({"denied": True} if denied else {})}
    return {**event, "metadata": noted} if noted else event


def _encrypted_value(metadata: Json) -> str | None:
    """By the names that the providers' SDKs use."""
    for provider in metadata.values() if isinstance(metadata, dict) else ():
        if isinstance(provider, dict):
            values = (provider.get(name) for name in _ENCRYPTED)
            return next((value for value in values if isinstance(value, str) and value), None)
    return None


def _value(value: Json | Absent) -> Json:
    return None if isinstance(value, Absent) else value


def _text_or_null(value: Json | Absent) -> str:
    return as_text(_value(value))


def _grown(unit: AguiUnit | None, text: str) -> list[AguiUnit]:
    if unit is None or unit.closed or not text:
        return []
    unit.chunks.append(text)
    return [unit]


def _closed(unit: AguiUnit | None) -> list[AguiUnit]:
    if unit is None or unit.closed:
        return []
    unit.closed = True
    return [unit]
