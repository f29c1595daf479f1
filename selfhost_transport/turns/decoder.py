"""Channel messages back into codec events (protocol sections 5.1, 5.2 and 5.3, read side).

Stateless: the growing of streams is kept by `fold`, the order of messages by `tree`. Everything here is tolerant:
what is not understood decodes to None and folds to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import decoder_openai as openai
from selfhost_transport.turns import inputs
from selfhost_transport.turns.headers import ROLE_ASSISTANT, ROLE_USER, Headers
from selfhost_transport.turns.ui import ConversationMessage, DataPart, FilePart, TextPart, UIMessage
from selfhost_transport.turns.values import ABSENT, Absent, Json, from_text, to_text

_REPAIRED_KINDS: Final = frozenset({"text", "reasoning", "tool-input"})
STREAM_KINDS: Final = _REPAIRED_KINDS | openai.STREAM_KINDS


@dataclass(slots=True, frozen=True)
class UserPart:
    """One part of a user message; parts with the same codec-message-id form one message."""

    message_id: str
    role: str
    part: inputs.UserPart


@dataclass(slots=True, frozen=True)
class ToolResolved:
    """A client's result of a tool call; `seed` are copies of messages it is addressed to (section 8.11)."""

    tool_call_id: str
    output: Json | Absent
    seed: tuple[ConversationMessage, ...] = ()


@dataclass(slots=True, frozen=True)
class ToolFailed:
    """A client's tool failed."""

    tool_call_id: str
    text: str
    seed: tuple[ConversationMessage, ...] = ()


@dataclass(slots=True, frozen=True)
class ApprovalAnswered:
    """A tool call was approved or denied."""

    tool_call_id: str
    approved: bool
    reason: str | None


@dataclass(slots=True, frozen=True)
class RegenerateRequested:
    """Wire-only: everything is in the transport headers; folds to nothing."""


InputEvent: TypeAlias = UserPart | ToolResolved | ToolFailed | ApprovalAnswered | RegenerateRequested


def decode_input(headers: Headers, payload: Json | Absent) -> InputEvent | None:
    """The event of an `ai-input`, or None for an unknown kind."""
    match headers.kind:
        case inputs.USER_MESSAGE:
            part = _user_part(headers, payload)
            return None if part is None else UserPart(headers.field("messageId") or "", _role(headers), part)
        case inputs.TOOL_RESULT:
            body = _mapping(payload)
            return ToolResolved(_call_id(headers), body.get("output", ABSENT), _seed(body))
        case inputs.TOOL_RESULT_ERROR:
            body = _mapping(payload)
            return ToolFailed(_call_id(headers), _string(body.get("message")), _seed(body))
        case inputs.TOOL_APPROVAL_RESPONSE:
            approved = headers.field("approved") == "true"
            return ApprovalAnswered(_call_id(headers), approved, headers.field("reason"))
        case inputs.REGENERATE:
            return RegenerateRequested()
        case _:
            return None


def deleted_question(headers: Headers) -> UserPart:
    """The remains of a deleted user message part: its owner, without its content."""
    return UserPart(headers.field("messageId") or "", _role(headers), TextPart(""))


def _role(headers: Headers) -> str:
    return ROLE_ASSISTANT if headers.role == ROLE_ASSISTANT else ROLE_USER


def needs_life_cycle(headers: Headers) -> bool:
    """Whether the message is content that `start` and `start-step` have to precede (section 5.3)."""
    return headers.kind in _REPAIRED_KINDS


def decode_stream_start(headers: Headers) -> p.TextStart | p.ReasoningStart | p.ToolInputStart | None:
    """The chunk that opens a stream message, or None for an unknown kind."""
    match headers.kind:
        case "text":
            return p.TextStart(_stream_id(headers, "id"), _json(headers, "providerMetadata"))
        case "reasoning":
            return p.ReasoningStart(_stream_id(headers, "id"), _json(headers, "providerMetadata"))
        case "tool-input":
            return _tool_start(headers, _stream_id(headers, "toolCallId"))
        case _:
            return openai.decode_stream_start(headers)


def decode_output(headers: Headers, payload: Json | Absent) -> list[p.Chunk]:
    """The chunks of a discrete `ai-output`; none for an unknown kind."""
    kind = headers.kind
    if kind == "tool-input":
        start = _tool_start(headers, _call_id(headers))
        value: Json | Absent = ABSENT if payload == "" else payload
        return [start, tool_available(start, value)]
    chunk = _decode_data(headers, kind, payload) if kind.startswith(p.DATA_PREFIX) else None
    chunk = chunk or _decode_tool(headers, kind, payload) or _decode_content(headers, kind, payload)
    chunk = chunk or openai.decode_output(headers, payload)
    return [] if chunk is None else [chunk]


def tool_available(start: p.ToolInputStart, value: Json | Absent) -> p.ToolInputAvailable:
    """The chunk that completes a tool call's arguments."""
    return p.ToolInputAvailable(
        start.tool_call_id, start.tool_name, value, start.dynamic, start.title, start.provider_executed,
        start.provider_metadata,
    )  # fmt: skip


def tool_input_value(text: str) -> Json | Absent:
    """A complete argument text as a value: nothing is ABSENT, invalid JSON stays text (section 5.3)."""
    if text == "":
        return ABSENT
    value = from_text(text)
    return text if isinstance(value, Absent) else value


def _decode_tool(headers: Headers, kind: str, payload: Json | Absent) -> p.Chunk | None:
    call_id, body = _call_id(headers), _mapping(payload)
    dynamic, executed = _flag(headers, "dynamic"), _flag(headers, "providerExecuted")
    match kind:
        case "tool-input-error":
            start, text = _tool_start(headers, call_id), _string(body.get("errorText"))
            return p.ToolInputError(
                call_id, start.tool_name, text, body.get("input", ABSENT), dynamic, start.title, executed,
                start.provider_metadata,
            )  # fmt: skip
        case "tool-output-available":
            output, preliminary = body.get("output", ABSENT), _flag(headers, "preliminary")
            return p.ToolOutputAvailable(call_id, output, dynamic, executed, preliminary)
        case "tool-output-error":
            return p.ToolOutputError(call_id, _string(body.get("errorText")), dynamic, executed)
        case "tool-approval-request":
            return p.ToolApprovalRequest(call_id, headers.field("approvalId") or "")
        case "tool-output-denied":
            return p.ToolOutputDenied(call_id)
        case _:
            return None


def _decode_content(headers: Headers, kind: str, payload: Json | Absent) -> p.Chunk | None:
    match kind:
        case "start":
            return p.Start(headers.field("messageId"), _json(headers, "messageMetadata"))
        case "start-step":
            return p.StartStep()
        case "finish-step":
            return p.FinishStep()
        case "finish":
            return p.Finish(headers.field("finishReason") or "stop", _json(headers, "messageMetadata"))
        case "message-metadata":
            return p.MessageMetadata(_json(headers, "messageMetadata"))
        case "abort":
            return p.Abort(_string(payload) or None)
        case "error":
            return p.Error(_string(payload))
        case _:
            return _decode_source(headers, kind, _string(payload))


def _decode_source(headers: Headers, kind: str, text: str) -> p.Chunk | None:
    title, provider = headers.field("title"), _json(headers, "providerMetadata")
    media_type, source_id = headers.field("mediaType") or "", headers.field("sourceId") or ""
    match kind:
        case "file":
            return p.File(text, media_type, provider)
        case "source-url":
            return p.SourceUrl(source_id, text, title, provider)
        case "source-document":
            return p.SourceDocument(source_id, media_type, title or "", headers.field("filename"), provider)
        case _:
            return None


def _decode_data(headers: Headers, kind: str, payload: Json | Absent) -> p.Chunk:
    value = None if isinstance(payload, Absent) else payload
    return p.Data(kind, value, headers.field("id"), _flag(headers, "transient"))


def _user_part(headers: Headers, payload: Json | Absent) -> inputs.UserPart | None:
    kind = headers.field("partType") or "text"
    if kind in ("text", openai.INPUT_TEXT):
        return TextPart(_string(payload))
    if kind == "file":
        return FilePart(_string(payload), headers.field("mediaType") or "")
    if kind.startswith(p.DATA_PREFIX):
        return DataPart(kind, None if isinstance(payload, Absent) else payload, headers.field("id"))
    return None


def _seed(body: Mapping[str, Json]) -> tuple[ConversationMessage, ...]:
    seed = body.get("forkSeed")
    messages = seed.get("messages") if isinstance(seed, dict) else None
    if not isinstance(messages, list):
        return ()
    found = []
    for entry in messages:
        if isinstance(entry, dict):
            codec_message_id, message = entry.get("codecMessageId"), entry.get("message")
            if isinstance(codec_message_id, str) and isinstance(message, dict):
                found.append(ConversationMessage(codec_message_id, UIMessage.from_json(message)))
    return tuple(found)


def _tool_start(headers: Headers, call_id: str) -> p.ToolInputStart:
    return p.ToolInputStart(
        call_id,
        headers.field("toolName") or "",
        _flag(headers, "dynamic"),
        headers.field("title"),
        _flag(headers, "providerExecuted"),
        _json(headers, "providerMetadata"),
    )


def _stream_id(headers: Headers, name: str) -> str:
    # The transport header is informative, except where a peer left the codec's own out (section 3).
    return headers.field(name) or headers.get("stream-id") or ""


def _call_id(headers: Headers) -> str:
    return headers.field("toolCallId") or headers.field(openai.CALL_ID) or ""


def _flag(headers: Headers, name: str) -> bool | None:
    value = headers.field(name)
    return value == "true" if value in ("true", "false") else None


def _json(headers: Headers, name: str) -> Json:
    text = headers.field(name)
    value = from_text(text) if text is not None else None
    return None if isinstance(value, Absent) else value


def _mapping(payload: Json | Absent) -> dict[str, Json]:
    return payload if isinstance(payload, dict) else {}


def _string(value: Json | Absent) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None or isinstance(value, Absent) else to_text(value)
