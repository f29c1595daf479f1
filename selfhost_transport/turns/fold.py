"""The projection of one tree node: its records folded, in serial order, into messages (protocol section 5.4).

Each stream feeds the part it created, so a delta costs its own length; only records that arrive out of order
make the node fold again from its log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import decoder as d
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import ui
from selfhost_transport.turns.codec import Codec, StreamStart
from selfhost_transport.turns.codecs import UI_MESSAGES
from selfhost_transport.turns.record import Record, TextBuffer
from selfhost_transport.turns.values import ABSENT, Absent, Json, from_text


@dataclass(slots=True, eq=False)
class TextState:
    """A text or reasoning part that may still grow."""

    reasoning: bool
    buffer: TextBuffer

    def snapshot(self) -> ui.Part:
        """The part as it is now."""
        text = str(self.buffer)
        return ui.ReasoningPart(text) if self.reasoning else ui.TextPart(text)


@dataclass(slots=True, eq=False)
class ToolState:
    """A tool part. While its input streams, `buffer` holds the text of it."""

    tool_call_id: str
    tool_name: str
    dynamic: bool
    title: str | None
    provider_executed: bool | None
    state: str = ui.INPUT_STREAMING
    buffer: TextBuffer | None = None
    input: Json | Absent = ABSENT
    output: Json | Absent = ABSENT
    error_text: str | None = None
    preliminary: bool | None = None
    approval: ui.Approval | None = None

    def enter(
        self,
        state: str,
        *,
        output: Json | Absent = ABSENT,
        error_text: str | None = None,
        preliminary: bool | None = None,
        approval: ui.Approval | None = None,
    ) -> None:
        """Move to `state`; only identity and input outlive a transition."""
        self.input, self.buffer = self.current_input(), None
        self.state, self.output, self.error_text = state, output, error_text
        self.preliminary, self.approval = preliminary, approval

    def current_input(self) -> Json | Absent:
        """The input; of a streaming one, the text so far if it is JSON."""
        return self.input if self.buffer is None else from_text(str(self.buffer))

    def snapshot(self) -> ui.Part:
        """The part as it is now."""
        return ui.ToolPart(
            self.tool_call_id, self.tool_name, self.state, self.dynamic, self.title, self.provider_executed,
            self.current_input(), self.output, self.error_text, self.preliminary, self.approval,
        )  # fmt: skip


PartState: TypeAlias = TextState | ToolState | ui.Part


@dataclass(slots=True, eq=False)
class MessageState:
    """A message that may still grow."""

    codec_message_id: str
    id: str
    role: str
    # Position of the record that created it; None while it is only our own, unconfirmed send.
    serial: str | None
    parts: list[PartState] = field(default_factory=list)
    tools: dict[str, ToolState] = field(default_factory=dict)
    metadata: Json = None
    codec: Codec = UI_MESSAGES
    # What it was folded from, in order.
    records: list[Record] = field(default_factory=list)
    _snapshot: ui.ConversationMessage | None = None

    def touch(self) -> None:
        """Forget the snapshot: something changed."""
        self._snapshot = None

    def add_tool(self, tool: ToolState) -> ToolState:
        """Add a tool part; a call id used again names the newest."""
        self.parts.append(tool)
        self.tools[tool.tool_call_id] = tool
        return tool

    def snapshot(self) -> ui.ConversationMessage:
        """The message as it is now; the same object until something changes."""
        if self._snapshot is None:
            parts = tuple(q.snapshot() if isinstance(q, TextState | ToolState) else q for q in self.parts)
            message = ui.UIMessage(self.id, self.role, parts, self.metadata)
            message = self.codec.message(message, self.records)
            self._snapshot = ui.ConversationMessage(self.codec_message_id, message, self.deleted)
        return self._snapshot

    @property
    def deleted(self) -> bool:
        """Whether everything it was made of was deleted."""
        return bool(self.records) and all(record.deleted for record in self.records)


class Projection:
    """Messages of one node by codec-message-id, in the order of their first records."""

    def __init__(self, codec: Codec = UI_MESSAGES) -> None:
        self.messages: dict[str, MessageState] = {}
        self._codec = codec
        # All records by the message they are for, those included that wait for it.
        self._records: dict[str, list[Record]] = {}
        # What each stream record feeds.
        self._fed: dict[Record, tuple[MessageState, TextState | ToolState, StreamStart]] = {}
        # Repair state (section 5.3): has the run seen `start`, and `start-step` since the last `finish-step`?
        self._started = False
        self._in_step = False
        # Answers by clients whose target has not been seen yet.
        self._pending: list[Record] = []

    def add(self, record: Record) -> list[p.Chunk]:
        """Fold a record that comes after all others; the chunks it amounts to, repairs included."""
        chunks: list[p.Chunk] = []
        self._records.setdefault(record.codec_message_id, []).append(record)
        if record.deleted:
            self._keep_place(record)
        elif record.input is not None:
            if not self._fold_input(record, record.input):
                self._pending.append(record)
        elif record.stream is not None:
            chunks = self._open_stream(record, record.stream)
        else:
            for chunk in record.chunks:
                if isinstance(chunk, p.ToolInputStart):
                    chunks += self._repair(record)
                self._fold_chunk(record, chunk)
                chunks.append(chunk)
        if self._pending:
            waiting, self._pending = self._pending, []
            self._pending = [r for r in waiting if r.input and not self._fold_input(r, r.input)]
        return chunks

    def grow(self, record: Record, delta: str, *, closing: bool) -> list[p.Chunk] | None:
        """A stream that was added has grown by `delta`, and closed; None: the node must fold again."""
        fed = self._fed.get(record)
        if fed is None:
            return None
        message, part, start = fed
        message.touch()
        if isinstance(part, ToolState) and part.buffer is None:
            return None
        chunks: list[p.Chunk] = [_delta(start, delta)] if delta else []
        return chunks + self._close_stream(record, part) if closing else chunks

    def _keep_place(self, record: Record) -> None:
        """Of what was deleted the message is left, without parts."""
        if isinstance(record.input, d.UserPart):
            self._ensure(record, record.input.role, record.input.message_id or None)
        else:
            self._ensure(record)

    def _ensure(
        self, record: Record, role: str = h.ROLE_ASSISTANT, message_id: str | None = None
    ) -> MessageState:
        key = record.codec_message_id
        message = self.messages.get(key)
        if message is None:
            message = self._new(key, key if message_id is None else message_id, role, record)
        message.touch()
        return message

    def _new(self, key: str, message_id: str, role: str, record: Record) -> MessageState:
        records = self._records.setdefault(key, [])
        message = MessageState(key, message_id, role, record.serial, codec=self._codec, records=records)
        self.messages[key] = message
        return message

    # Streams

    def _open_stream(self, record: Record, buffer: TextBuffer) -> list[p.Chunk]:
        start = self._codec.decode_stream_start(record.headers)
        if start is None:
            return []
        chunks = [*self._repair(record), start]
        part = self._add_stream_part(record, start, buffer)
        text = str(buffer)
        if text:
            chunks.append(_delta(start, text))
        return chunks + self._close_stream(record, part)

    def _add_stream_part(
        self, record: Record, start: StreamStart, buffer: TextBuffer
    ) -> TextState | ToolState:
        message = self._ensure(record)
        part: TextState | ToolState
        if isinstance(start, p.ToolInputStart):
            part = message.add_tool(_new_tool(start, buffer))
        else:
            part = TextState(isinstance(start, p.ReasoningStart), buffer)
            message.parts.append(part)
        self._fed[record] = message, part, start
        return part

    def _close_stream(self, record: Record, part: TextState | ToolState) -> list[p.Chunk]:
        if record.status != h.COMPLETE:
            return []
        start = self._codec.decode_stream_start(record.headers)
        if isinstance(part, ToolState) and isinstance(start, p.ToolInputStart):
            value = d.tool_input_value(str(part.buffer or ""))
            part.enter(ui.INPUT_AVAILABLE)
            part.input = value
            return [d.tool_available(start, value)]
        if isinstance(start, p.ReasoningStart):
            return [p.ReasoningEnd(start.id, start.provider_metadata)]
        return [p.TextEnd(start.id, start.provider_metadata)] if isinstance(start, p.TextStart) else []

    def _repair(self, record: Record) -> list[p.Chunk]:
        """What a peer left out before content: `start`, `start-step` (section 5.3)."""
        missing: list[p.Chunk] = []
        if not d.needs_life_cycle(record.headers):
            return missing
        if not self._started:
            missing.append(p.Start(record.headers.field("messageId")))
        if not self._in_step:
            missing.append(p.StartStep())
        for chunk in missing:
            self._fold_chunk(record, chunk)
        return missing

    # Discrete outputs

    def _fold_chunk(self, record: Record, chunk: p.Chunk) -> None:
        match chunk:
            case p.Start():
                self._started = True
                message = self._ensure(record)
                message.id = message.id if chunk.message_id is None else chunk.message_id
                _set_metadata(message, chunk.message_metadata)
            case p.StartStep():
                self._in_step = True
                self._ensure(record).parts.append(ui.StepStartPart())
            case p.FinishStep():
                self._in_step = False
            case p.Finish() | p.MessageMetadata():
                self._reset(isinstance(chunk, p.Finish))
                _set_metadata(self.messages.get(record.codec_message_id), chunk.message_metadata)
            case p.Abort() | p.Error():
                self._reset(True)
            case p.Data():
                self._fold_data(record, chunk)
            case p.File() | p.SourceUrl() | p.SourceDocument():
                self._ensure(record).parts.append(_source(chunk))
            case p.Native():
                self._ensure(record)
            case _:
                self._fold_tool(record, chunk)

    def _reset(self, ended: bool) -> None:
        if ended:
            self._started = self._in_step = False

    def _fold_data(self, record: Record, chunk: p.Data) -> None:
        if chunk.transient:
            return
        parts = self._ensure(record).parts
        part = ui.DataPart(chunk.name, None if isinstance(chunk.data, Absent) else chunk.data, chunk.id)
        if chunk.id is not None:
            for n, earlier in enumerate(parts):
                if isinstance(earlier, ui.DataPart) and (earlier.type, earlier.id) == (part.type, part.id):
                    parts[n] = part
                    return
        parts.append(part)

    def _fold_tool(self, record: Record, chunk: p.Chunk) -> None:
        match chunk:
            case p.ToolInputStart():
                self._ensure(record).add_tool(_new_tool(chunk, None))
            case p.ToolInputAvailable():
                self._tool_here(record, chunk).enter(ui.INPUT_AVAILABLE)
                self._tool_here(record, chunk).input = chunk.input
            case p.ToolInputError():
                self._tool_here(record, chunk).enter(ui.OUTPUT_ERROR, error_text=chunk.error_text)
                self._tool_here(record, chunk).input = chunk.input
            case p.ToolOutputAvailable():
                if tool := self._tool_anywhere(record, chunk.tool_call_id):
                    tool.enter(
                        ui.OUTPUT_AVAILABLE, output=chunk.output, preliminary=chunk.preliminary or None
                    )
            case p.ToolOutputError():
                if tool := self._tool_anywhere(record, chunk.tool_call_id):
                    tool.enter(ui.OUTPUT_ERROR, error_text=chunk.error_text)
            case p.ToolApprovalRequest():
                if tool := self._tool_in(record.codec_message_id, chunk.tool_call_id):
                    tool.enter(ui.APPROVAL_REQUESTED, approval=ui.Approval(chunk.approval_id))
            case p.ToolOutputDenied():
                if tool := self._tool_in(record.codec_message_id, chunk.tool_call_id):
                    tool.enter(ui.OUTPUT_DENIED, approval=ui.Approval("", False))

    def _tool_here(self, record: Record, chunk: p.ToolInputAvailable | p.ToolInputError) -> ToolState:
        message = self._ensure(record)
        start = p.ToolInputStart(
            chunk.tool_call_id, chunk.tool_name, chunk.dynamic, chunk.title, chunk.provider_executed
        )
        return message.tools.get(chunk.tool_call_id) or message.add_tool(_new_tool(start, None))

    def _tool_in(self, codec_message_id: str, tool_call_id: str) -> ToolState | None:
        message = self.messages.get(codec_message_id)
        tool = message.tools.get(tool_call_id) if message else None
        if message is not None and tool is not None:
            message.touch()
        return tool

    def _tool_anywhere(self, record: Record, tool_call_id: str) -> ToolState | None:
        """The part of a call in any message of the run: an approved tool reports under a new message (v29)."""
        found = self._tool_in(record.codec_message_id, tool_call_id)
        for key in reversed(self.messages):
            found = found or self._tool_in(key, tool_call_id)
        return found

    # Inputs

    def _fold_input(self, record: Record, event: d.InputEvent) -> bool:
        """Fold a client's input; False when it has to wait for its target."""
        match event:
            case d.UserPart():
                self._ensure(record, event.role, event.message_id).parts.append(event.part)
                return True
            case d.ToolResolved() | d.ToolFailed():
                if record.codec_message_id not in self.messages:
                    self._plant(record, event.seed)
                tool = self._tool_in(record.codec_message_id, event.tool_call_id)
                if tool is not None and isinstance(event, d.ToolResolved):
                    tool.enter(ui.OUTPUT_AVAILABLE, output=event.output)
                elif tool is not None and isinstance(event, d.ToolFailed):
                    tool.enter(ui.OUTPUT_ERROR, error_text=event.text)
                return tool is not None
            case d.ApprovalAnswered():
                return self._fold_approval(record, event)
            case d.RegenerateRequested():
                return True

    def _fold_approval(self, record: Record, event: d.ApprovalAnswered) -> bool:
        tool = self._tool_in(record.codec_message_id, event.tool_call_id)
        if tool is None:
            return False
        if event.approved:
            asked = tool.approval.id if tool.approval else ""
            tool.enter(ui.APPROVAL_RESPONDED, approval=ui.Approval(asked, True, event.reason))
        else:
            tool.enter(ui.OUTPUT_DENIED, approval=ui.Approval("", False))
        return True

    def _plant(self, record: Record, seed: tuple[ui.ConversationMessage, ...]) -> None:
        """Copies of the superseded run's messages, which the fork's answer is addressed to (section 8.11)."""
        for copy in seed:
            if copy.codec_message_id in self.messages:
                continue
            source = copy.message
            message = self._new(copy.codec_message_id, source.id, source.role, record)
            message.metadata = source.metadata
            for part in source.parts:
                if isinstance(part, ui.ToolPart):
                    message.add_tool(_mutable_copy(part))
                else:
                    message.parts.append(part)


def _new_tool(start: p.ToolInputStart, buffer: TextBuffer | None) -> ToolState:
    return ToolState(
        start.tool_call_id,
        start.tool_name,
        dynamic=bool(start.dynamic),
        title=start.title,
        provider_executed=start.provider_executed,
        buffer=buffer,
    )


def _mutable_copy(part: ui.ToolPart) -> ToolState:
    return ToolState(
        part.tool_call_id, part.tool_name, part.dynamic, part.title, part.provider_executed, part.state, None,
        part.input, part.output, part.error_text, part.preliminary, part.approval,
    )  # fmt: skip


def _set_metadata(message: MessageState | None, metadata: Json) -> None:
    if message is not None and metadata is not None:
        message.metadata = metadata
        message.touch()


def _source(chunk: p.File | p.SourceUrl | p.SourceDocument) -> ui.Part:
    match chunk:
        case p.File():
            return ui.FilePart(chunk.url, chunk.media_type)
        case p.SourceUrl():
            return ui.SourceUrlPart(chunk.source_id, chunk.url, chunk.title)
        case p.SourceDocument():
            return ui.SourceDocumentPart(
                chunk.source_id, chunk.media_type, chunk.title or None, chunk.filename
            )


def _delta(start: StreamStart, text: str) -> p.Chunk:
    match start:
        case p.TextStart():
            return p.TextDelta(start.id, text)
        case p.ReasoningStart():
            return p.ReasoningDelta(start.id, text)
        case p.ToolInputStart():
            return p.ToolInputDelta(start.tool_call_id, text)
