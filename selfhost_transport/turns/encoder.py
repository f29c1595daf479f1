"""Chunks of one assistant message into channel operations (protocol sections 4 and 5.1, write side)."""

from __future__ import annotations

from typing import Final

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.outputs import Append, Close, Create, OutputMessages, OutputOperation
from selfhost_transport.turns.values import Absent, Json, to_text

__all__ = ["FINISH_REASONS", "Append", "Close", "Create", "Encoder", "OutputOperation"]

FINISH_REASONS: Final = frozenset({"stop", "length", "content-filter", "tool-calls", "error", "other"})


class Encoder(OutputMessages):
    """One pass as a UI message stream."""

    def encode(self, chunk: p.Chunk) -> list[OutputOperation]:
        """The operations for one chunk, in order. Raises InvalidArgument for a chunk out of sequence."""
        # The hot path first: a token costs one lookup and one object.
        match chunk:
            case p.TextDelta():
                return self.append("text", chunk.id, chunk.delta)
            case p.ReasoningDelta():
                return self.append("reasoning", chunk.id, chunk.delta)
            case p.ToolInputDelta():
                return self.append("tool-input", chunk.tool_call_id, chunk.input_text_delta)
            case p.TextStart():
                return self.open("text", chunk.id, _part_headers("text", chunk))
            case p.ReasoningStart():
                return self.open("reasoning", chunk.id, _part_headers("reasoning", chunk))
            case p.ToolInputStart():
                return self.open("tool-input", chunk.tool_call_id, _tool_headers("tool-input", chunk))
            case p.TextEnd():
                return self.close("text", chunk.id, _part_headers("text", chunk))
            case p.ReasoningEnd():
                return self.close("reasoning", chunk.id, _part_headers("reasoning", chunk))
            case p.ToolInputAvailable() if self.is_open("tool-input", chunk.tool_call_id):
                return self.close("tool-input", chunk.tool_call_id, _tool_closing_headers(chunk))
            case _:
                codec, payload = _discrete(chunk, self.codec_message_id)
                transient = isinstance(chunk, p.Data) and chunk.transient is True
                return [self.discrete(codec, payload, ephemeral=transient)]


def _flag(value: bool | None) -> str | None:
    return None if value is None else "true" if value else "false"


def _json(value: Json) -> str | None:
    return None if value is None else to_text(value)


def _part_headers(
    kind: str, chunk: p.TextStart | p.TextEnd | p.ReasoningStart | p.ReasoningEnd
) -> dict[str, str]:
    return h.header_map(
        (h.KIND, kind), ("id", chunk.id), ("providerMetadata", _json(chunk.provider_metadata))
    )


def _tool_headers(
    kind: str, chunk: p.ToolInputStart | p.ToolInputAvailable | p.ToolInputError
) -> dict[str, str]:
    return h.header_map(
        (h.KIND, kind),
        ("toolCallId", chunk.tool_call_id),
        ("toolName", chunk.tool_name),
        ("dynamic", _flag(chunk.dynamic)),
        ("title", chunk.title),
        ("providerExecuted", _flag(chunk.provider_executed)),
        ("providerMetadata", _json(chunk.provider_metadata)),
    )


def _tool_closing_headers(chunk: p.ToolInputAvailable) -> dict[str, str]:
    return h.header_map(
        ("toolCallId", chunk.tool_call_id),
        ("toolName", chunk.tool_name),
        ("providerMetadata", _json(chunk.provider_metadata)),
    )


def _discrete(chunk: p.Chunk, codec_message_id: str) -> tuple[dict[str, str], Json | Absent]:
    """(codec headers, payload) of a chunk that is a message of its own."""
    kind = (h.KIND, chunk.name if isinstance(chunk, p.Data) else chunk.type)
    match chunk:
        case p.ToolInputAvailable():
            return _tool_headers("tool-input", chunk), chunk.input
        case p.ToolInputError():
            return _tool_headers(chunk.type, chunk), _object(errorText=chunk.error_text, input=chunk.input)
        case p.ToolOutputAvailable():
            preliminary = ("preliminary", _flag(chunk.preliminary))
            return h.header_map(kind, *_tool_output(chunk), preliminary), _object(output=chunk.output)
        case p.ToolOutputError():
            return h.header_map(kind, *_tool_output(chunk)), {"errorText": chunk.error_text}
        case p.ToolApprovalRequest():
            approval = ("approvalId", chunk.approval_id)
            return h.header_map(kind, ("toolCallId", chunk.tool_call_id), approval), ""
        case p.ToolOutputDenied():
            return h.header_map(kind, ("toolCallId", chunk.tool_call_id)), ""
        case p.Data():
            return h.header_map(kind, ("id", chunk.id), ("transient", _flag(chunk.transient))), chunk.data
        case _:
            return _discrete_content(chunk, kind, codec_message_id)


def _discrete_content(
    chunk: p.Chunk, kind: tuple[str, str], codec_message_id: str
) -> tuple[dict[str, str], Json | Absent]:
    match chunk:
        case p.Start():
            message_id = codec_message_id if chunk.message_id is None else chunk.message_id
            return h.header_map(kind, ("messageId", message_id), _metadata(chunk)), ""
        case p.Finish():
            reason = chunk.finish_reason if chunk.finish_reason in FINISH_REASONS else "stop"
            return h.header_map(kind, ("finishReason", reason), _metadata(chunk)), ""
        case p.MessageMetadata():
            return h.header_map(kind, _metadata(chunk)), ""
        case p.Abort():
            return h.header_map(kind), chunk.reason or ""
        case p.Error():
            return h.header_map(kind), chunk.error_text
        case p.File():
            return h.header_map(kind, ("mediaType", chunk.media_type), _provider(chunk)), chunk.url
        case p.SourceUrl():
            source = (("sourceId", chunk.source_id), ("title", chunk.title))
            return h.header_map(kind, *source, _provider(chunk)), chunk.url
        case p.SourceDocument():
            document = (("mediaType", chunk.media_type), ("title", chunk.title), ("filename", chunk.filename))
            return h.header_map(kind, ("sourceId", chunk.source_id), *document, _provider(chunk)), ""
        case p.StartStep() | p.FinishStep():
            return h.header_map(kind), ""
        case _:
            raise InvalidArgument(f"a {chunk.type} chunk cannot be encoded here")


def _object(**fields: Json | Absent) -> Json:
    return {name: value for name, value in fields.items() if not isinstance(value, Absent)}


def _tool_output(chunk: p.ToolOutputAvailable | p.ToolOutputError) -> tuple[tuple[str, str | None], ...]:
    return (
        ("toolCallId", chunk.tool_call_id),
        ("dynamic", _flag(chunk.dynamic)),
        ("providerExecuted", _flag(chunk.provider_executed)),
    )


def _metadata(chunk: p.Start | p.Finish | p.MessageMetadata) -> tuple[str, str | None]:
    return "messageMetadata", _json(chunk.message_metadata)


def _provider(chunk: p.File | p.SourceUrl | p.SourceDocument) -> tuple[str, str | None]:
    return "providerMetadata", _json(chunk.provider_metadata)
