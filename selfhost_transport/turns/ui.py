"""The messages a conversation consists of, in the shape of the Vercel `UIMessage` (protocol section 5.4).

Values are snapshots: they never change after they were handed out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from selfhost_transport.turns.values import ABSENT, Absent, Json

# States of a tool part.
INPUT_STREAMING: Final = "input-streaming"
INPUT_AVAILABLE: Final = "input-available"
APPROVAL_REQUESTED: Final = "approval-requested"
APPROVAL_RESPONDED: Final = "approval-responded"
OUTPUT_AVAILABLE: Final = "output-available"
OUTPUT_ERROR: Final = "output-error"
OUTPUT_DENIED: Final = "output-denied"

# A tool call in one of these has no result that a model could read.
UNANSWERED: Final = frozenset({INPUT_STREAMING, INPUT_AVAILABLE, APPROVAL_REQUESTED, APPROVAL_RESPONDED})

DYNAMIC_TOOL: Final = "dynamic-tool"
_TOOL_PREFIX: Final = "tool-"


@dataclass(slots=True, frozen=True)
class TextPart:
    """Text."""

    text: str


@dataclass(slots=True, frozen=True)
class ReasoningPart:
    """What the model thought aloud."""

    text: str


@dataclass(slots=True, frozen=True)
class StepStartPart:
    """A model call began here."""


@dataclass(slots=True, frozen=True)
class FilePart:
    """A file by its URL."""

    url: str
    media_type: str


@dataclass(slots=True, frozen=True)
class SourceUrlPart:
    """A web page the answer relies on."""

    source_id: str
    url: str
    title: str | None = None


@dataclass(slots=True, frozen=True)
class SourceDocumentPart:
    """A document the answer relies on."""

    source_id: str
    media_type: str
    title: str | None = None
    filename: str | None = None


@dataclass(slots=True, frozen=True)
class DataPart:
    """An application's own part; `type` begins with `data-`."""

    type: str
    data: Json
    id: str | None = None


@dataclass(slots=True, frozen=True)
class Approval:
    """The approval of a tool call. `approved` is None while unanswered."""

    id: str
    approved: bool | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Json]:
        """Its JSON form."""
        return _without_none(id=self.id, approved=self.approved, reason=self.reason)


@dataclass(slots=True, frozen=True)
class ToolPart:
    """A tool call with the state it has reached. ABSENT input: not known, or not yet JSON."""

    tool_call_id: str
    tool_name: str
    state: str
    dynamic: bool = False
    title: str | None = None
    provider_executed: bool | None = None
    input: Json | Absent = ABSENT
    output: Json | Absent = ABSENT
    error_text: str | None = None
    preliminary: bool | None = None
    approval: Approval | None = None


@dataclass(slots=True, frozen=True)
class OtherPart:
    """A part of a type this version does not know, kept as it came (in a fork seed)."""

    json: Mapping[str, Any]


Part: TypeAlias = (
    TextPart | ReasoningPart | StepStartPart | FilePart | SourceUrlPart | SourceDocumentPart | DataPart
    | ToolPart | OtherPart
)  # fmt: skip


@dataclass(slots=True, frozen=True)
class UIMessage:
    """One message: `id` is the application's, `role` is `user` or `assistant`."""

    id: str
    role: str
    parts: tuple[Part, ...] = ()
    metadata: Json = None

    @property
    def text(self) -> str:
        """All its text parts as one string (reasoning excluded)."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    def to_json(self) -> dict[str, Any]:
        """The JSON form that `useChat` and the JS SDK use."""
        wire: dict[str, Any] = {
            "id": self.id,
            "role": self.role,
            "parts": [part_to_json(p) for p in self.parts],
        }
        if self.metadata is not None:
            wire["metadata"] = self.metadata
        return wire

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> UIMessage:
        """Read a message leniently: missing or mistyped fields become empty."""
        parts = value.get("parts")
        known = (
            [part_from_json(p) for p in parts if isinstance(p, Mapping)] if isinstance(parts, list) else []
        )
        role = _text(value, "role")
        return cls(_text(value, "id"), role or "assistant", tuple(known), value.get("metadata"))


@dataclass(slots=True, frozen=True)
class ConversationMessage:
    """A message with its identity on the wire."""

    codec_message_id: str
    message: UIMessage
    # Deleted by its sender: it has no parts any more, and keeps its place.
    deleted: bool = False

    def to_json(self) -> dict[str, Any]:
        """`{codecMessageId, message}`, the form of the JS SDK's view; `deleted` where it is."""
        shown = {"codecMessageId": self.codec_message_id, "message": self.message.to_json()}
        return {**shown, "deleted": True} if self.deleted else shown


def messages_to_json(messages: Sequence[ConversationMessage]) -> list[dict[str, Any]]:
    """The JSON form of a view's message list."""
    return [message.to_json() for message in messages]


def part_to_json(part: Part) -> dict[str, Any]:
    """The JSON form of one part; absent fields are left out."""
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ReasoningPart():
            return {"type": "reasoning", "text": part.text}
        case StepStartPart():
            return {"type": "step-start"}
        case FilePart():
            return {"type": "file", "mediaType": part.media_type, "url": part.url}
        case SourceUrlPart():
            return _without_none(type="source-url", sourceId=part.source_id, url=part.url, title=part.title)
        case SourceDocumentPart():
            return _without_none(
                type="source-document", sourceId=part.source_id, mediaType=part.media_type,
                title=part.title, filename=part.filename,
            )  # fmt: skip
        case DataPart():
            return {**_without_none(type=part.type, id=part.id), "data": part.data}
        case ToolPart():
            return _tool_to_json(part)
        case OtherPart():
            return dict(part.json)


def part_from_json(value: Mapping[str, Any]) -> Part:
    """Read one part leniently; a type that is not known is kept as it is."""
    kind = _text(value, "type")
    match kind:
        case "text":
            return TextPart(_text(value, "text"))
        case "reasoning":
            return ReasoningPart(_text(value, "text"))
        case "step-start":
            return StepStartPart()
        case "file":
            return FilePart(_text(value, "url"), _text(value, "mediaType"))
        case "source-url":
            return SourceUrlPart(_text(value, "sourceId"), _text(value, "url"), _optional(value, "title"))
        case "source-document":
            return SourceDocumentPart(
                _text(value, "sourceId"),
                _text(value, "mediaType"),
                _optional(value, "title"),
                _optional(value, "filename"),
            )
        case _ if kind == DYNAMIC_TOOL or (kind.startswith(_TOOL_PREFIX) and _optional(value, "toolCallId")):
            return _tool_from_json(kind, value)
        case _ if kind.startswith("data-") and "data" in value:
            return DataPart(kind, value["data"], _optional(value, "id"))
        case _:
            return OtherPart(value)


def _tool_to_json(part: ToolPart) -> dict[str, Any]:
    wire = _without_none(
        type=DYNAMIC_TOOL if part.dynamic else _TOOL_PREFIX + part.tool_name,
        toolCallId=part.tool_call_id,
        toolName=part.tool_name if part.dynamic else None,
        title=part.title,
        providerExecuted=part.provider_executed,
        state=part.state,
        errorText=part.error_text,
        preliminary=part.preliminary,
        approval=part.approval.to_json() if part.approval else None,
    )
    if not isinstance(part.input, Absent):
        wire["input"] = part.input
    if not isinstance(part.output, Absent):
        wire["output"] = part.output
    return wire


def _tool_from_json(kind: str, value: Mapping[str, Any]) -> ToolPart:
    dynamic = kind == DYNAMIC_TOOL
    approval, executed, preliminary = (
        value.get("approval"),
        value.get("providerExecuted"),
        value.get("preliminary"),
    )
    return ToolPart(
        tool_call_id=_text(value, "toolCallId"),
        tool_name=_text(value, "toolName") if dynamic else kind.removeprefix(_TOOL_PREFIX),
        state=_text(value, "state") or INPUT_AVAILABLE,
        dynamic=dynamic,
        title=_optional(value, "title"),
        provider_executed=executed if isinstance(executed, bool) else None,
        input=value.get("input", ABSENT),
        output=value.get("output", ABSENT),
        error_text=_optional(value, "errorText"),
        preliminary=preliminary if isinstance(preliminary, bool) else None,
        approval=_approval_from_json(approval) if isinstance(approval, Mapping) else None,
    )


def _approval_from_json(value: Mapping[str, Any]) -> Approval:
    approved = value.get("approved")
    return Approval(
        _text(value, "id"), approved if isinstance(approved, bool) else None, _optional(value, "reason")
    )


def _text(value: Mapping[str, Any], name: str) -> str:
    return _optional(value, name) or ""


def _optional(value: Mapping[str, Any], name: str) -> str | None:
    found = value.get(name)
    return found if isinstance(found, str) else None


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
