"""The chunks of an assistant message's stream: what agents emit and clients read (protocol section 5.1).

One dataclass per chunk type of the Vercel UI message stream; `chunk_from_json` and `chunk_to_json` convert
from and to its JSON form, in which names are camelCase and absent fields are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns.values import ABSENT, Absent, Json, carried, whole_characters


@dataclass(slots=True, frozen=True)
class TextStart:
    """A text part begins; `id` names it until its end."""

    type: ClassVar[str] = "text-start"
    id: str
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class TextDelta:
    """More text of the part `id`."""

    type: ClassVar[str] = "text-delta"
    id: str
    delta: str
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class TextEnd:
    """The text part `id` is complete."""

    type: ClassVar[str] = "text-end"
    id: str
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class ReasoningStart:
    """A reasoning part begins."""

    type: ClassVar[str] = "reasoning-start"
    id: str
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class ReasoningDelta:
    """More text of the reasoning part `id`."""

    type: ClassVar[str] = "reasoning-delta"
    id: str
    delta: str
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class ReasoningEnd:
    """The reasoning part `id` is complete."""

    type: ClassVar[str] = "reasoning-end"
    id: str
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class ToolInputStart:
    """The arguments of a tool call begin to stream."""

    type: ClassVar[str] = "tool-input-start"
    tool_call_id: str
    tool_name: str
    dynamic: bool | None = None
    title: str | None = None
    provider_executed: bool | None = None
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class ToolInputDelta:
    """More JSON text of a tool call's arguments."""

    type: ClassVar[str] = "tool-input-delta"
    tool_call_id: str
    input_text_delta: str


@dataclass(slots=True, frozen=True)
class ToolInputAvailable:
    """A tool call's arguments are complete."""

    type: ClassVar[str] = "tool-input-available"
    tool_call_id: str
    tool_name: str
    input: Json | Absent = ABSENT
    dynamic: bool | None = None
    title: str | None = None
    provider_executed: bool | None = None
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class ToolInputError:
    """A tool call's arguments are unusable."""

    type: ClassVar[str] = "tool-input-error"
    tool_call_id: str
    tool_name: str
    error_text: str
    input: Json | Absent = ABSENT
    dynamic: bool | None = None
    title: str | None = None
    provider_executed: bool | None = None
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class ToolOutputAvailable:
    """A tool call has its result; `preliminary` ones are followed by another."""

    type: ClassVar[str] = "tool-output-available"
    tool_call_id: str
    output: Json | Absent = ABSENT
    dynamic: bool | None = None
    provider_executed: bool | None = None
    preliminary: bool | None = None


@dataclass(slots=True, frozen=True)
class ToolOutputError:
    """A tool call failed."""

    type: ClassVar[str] = "tool-output-error"
    tool_call_id: str
    error_text: str
    dynamic: bool | None = None
    provider_executed: bool | None = None


@dataclass(slots=True, frozen=True)
class ToolApprovalRequest:
    """A tool call needs approval."""

    type: ClassVar[str] = "tool-approval-request"
    tool_call_id: str
    approval_id: str


@dataclass(slots=True, frozen=True)
class ToolOutputDenied:
    """A tool call was not allowed."""

    type: ClassVar[str] = "tool-output-denied"
    tool_call_id: str


@dataclass(slots=True, frozen=True)
class Start:
    """The message begins; `message_id` is the application's own id for it."""

    type: ClassVar[str] = "start"
    message_id: str | None = None
    message_metadata: Json = None


@dataclass(slots=True, frozen=True)
class StartStep:
    """A model call begins."""

    type: ClassVar[str] = "start-step"


@dataclass(slots=True, frozen=True)
class FinishStep:
    """A model call is over."""

    type: ClassVar[str] = "finish-step"


@dataclass(slots=True, frozen=True)
class Finish:
    """The message is over; clients stop reading its stream here."""

    type: ClassVar[str] = "finish"
    finish_reason: str | None = None
    message_metadata: Json = None


@dataclass(slots=True, frozen=True)
class MessageMetadata:
    """Replaces the message's metadata."""

    type: ClassVar[str] = "message-metadata"
    message_metadata: Json = None


@dataclass(slots=True, frozen=True)
class Abort:
    """The model's stream was aborted."""

    type: ClassVar[str] = "abort"
    reason: str | None = None


@dataclass(slots=True, frozen=True)
class Error:
    """The model's stream failed."""

    type: ClassVar[str] = "error"
    error_text: str


@dataclass(slots=True, frozen=True)
class File:
    """A generated file."""

    type: ClassVar[str] = "file"
    url: str
    media_type: str
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class SourceUrl:
    """A web page the answer relies on."""

    type: ClassVar[str] = "source-url"
    source_id: str
    url: str
    title: str | None = None
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class SourceDocument:
    """A document the answer relies on."""

    type: ClassVar[str] = "source-document"
    source_id: str
    media_type: str
    title: str
    filename: str | None = None
    provider_metadata: Json = None


@dataclass(slots=True, frozen=True)
class Data:
    """An application's own part; `name` begins with `data-`. One with an `id` replaces the earlier one."""

    type: ClassVar[str] = "data-"
    name: str
    data: Json | Absent = ABSENT
    id: str | None = None
    transient: bool | None = None


@dataclass(slots=True, frozen=True)
class Native:
    """An event of another codec in its own JSON form, where no chunk says the same (SDK-5)."""

    type: ClassVar[str] = "native"
    event: Mapping[str, Any]


Chunk: TypeAlias = (
    TextStart | TextDelta | TextEnd | ReasoningStart | ReasoningDelta | ReasoningEnd
    | ToolInputStart | ToolInputDelta | ToolInputAvailable | ToolInputError
    | ToolOutputAvailable | ToolOutputError | ToolApprovalRequest | ToolOutputDenied
    | Start | StartStep | FinishStep | Finish | MessageMetadata | Abort | Error
    | File | SourceUrl | SourceDocument | Data | Native
)  # fmt: skip

_CLASSES: Final[tuple[type[Chunk], ...]] = (
    TextStart, TextDelta, TextEnd, ReasoningStart, ReasoningDelta, ReasoningEnd,
    ToolInputStart, ToolInputDelta, ToolInputAvailable, ToolInputError,
    ToolOutputAvailable, ToolOutputError, ToolApprovalRequest, ToolOutputDenied,
    Start, StartStep, FinishStep, Finish, MessageMetadata, Abort, Error, File, SourceUrl, SourceDocument,
)  # fmt: skip
_BY_TYPE: Final[dict[str, type[Chunk]]] = {cls.type: cls for cls in _CLASSES}
_JSON_FIELDS: Final = frozenset({"input", "output", "data", "provider_metadata", "message_metadata", "event"})
# More of a text: a character may be cut between two of them.
_GROWING: Final = frozenset({"delta", "input_text_delta"})
_REQUIRED: Final[dict[type[Chunk], frozenset[str]]] = {
    cls: frozenset(field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING)
    for cls in (*_CLASSES, Data, Native)
}
_BOOL_FIELDS: Final = frozenset({"dynamic", "provider_executed", "preliminary", "transient"})
DATA_PREFIX: Final = "data-"


def carried_chunk(chunk: Chunk) -> Chunk:
    """The chunk with values that can be written: its fields by `values.carried`.

    Raises InvalidArgument, naming the field, for a value that cannot be carried, and for what is no chunk.
    """
    # The path of every token: halves of characters are joined where the texts are.
    if isinstance(chunk, TextDelta | ReasoningDelta) and type(chunk.delta) is str and type(chunk.id) is str:
        return chunk
    if not isinstance(chunk, Chunk):
        raise InvalidArgument(
            f"{type(chunk).__name__} cannot be part of an answer; yield text, Reasoning, a chunk, or its JSON form"
        )
    changed = {
        field.name: new
        for field in dataclasses.fields(chunk)
        if (old := getattr(chunk, field.name)) is not field.default
        and (new := _carried_field(chunk, field.name, old)) is not old
    }
    return dataclasses.replace(chunk, **changed) if changed else chunk


def _carried_field(chunk: Chunk, name: str, value: Any) -> Any:
    what = f"`{_camel(name)}` of a {chunk.type} chunk"
    if value is ABSENT or (value is None and name not in _REQUIRED[type(chunk)]):
        return value
    if name in _JSON_FIELDS:
        return whole_characters(value) if type(value) is str else carried(value, what)
    if not _fits(name, value):
        raise InvalidArgument(f"{what} cannot be of the type {type(value).__name__}")
    if not isinstance(value, str) or name in _GROWING:
        return value
    return whole_characters(str.__str__(value))


def chunk_from_json(value: Mapping[str, Any]) -> Chunk:
    """Read one chunk of a UI message stream; unknown fields are ignored.

    Raises InvalidArgument for an unknown type and for a field of the wrong type or absent (section 5.1).
    """
    kind = value.get("type")
    if not isinstance(kind, str):
        raise InvalidArgument("a chunk needs a string field `type`")
    if kind.startswith(DATA_PREFIX):
        return Data(**_fields(Data, {**value, "name": kind}))
    cls = _BY_TYPE.get(kind)
    if cls is None:
        raise InvalidArgument(f"chunk type {kind!r} cannot be carried")
    return cls(**_fields(cls, value))


def chunk_to_json(chunk: Chunk) -> dict[str, Any]:
    """The JSON form of a chunk; a native event as it is."""
    if isinstance(chunk, Native):
        return dict(chunk.event)
    wire: dict[str, Any] = {"type": chunk.name if isinstance(chunk, Data) else chunk.type}
    for field in dataclasses.fields(chunk):
        value = getattr(chunk, field.name)
        if value is ABSENT or (value is None and field.default is None) or field.name == "name":
            continue
        wire[_camel(field.name)] = value
    return wire


def _fields(cls: type[Chunk], value: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        name = _camel(field.name)
        required = field.default is dataclasses.MISSING
        if name not in value or (value[name] is None and field.default is None):
            if required:
                raise InvalidArgument(f"a {value['type']} chunk needs `{name}`")
            continue
        if not _fits(field.name, value[name]):
            raise InvalidArgument(f"`{name}` of a {value['type']} chunk has the wrong type")
        found[field.name] = value[name]
    return found


def _fits(field: str, value: object) -> bool:
    if field in _JSON_FIELDS:
        return True
    return isinstance(value, bool if field in _BOOL_FIELDS else str)


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)
