"""Chunks of one assistant message into channel operations (protocol sections 4 and 5.1, write side)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import parts as p
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.values import Absent, Json, pack, to_text
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message

FINISH_REASONS: Final = frozenset({"stop", "length", "content-filter", "tool-calls", "error", "other"})


@dataclass(slots=True, frozen=True)
class Create:
    """Publish `message`. Of a stream: `stream_key` names it, `closing` is what closes it as cancelled."""

    message: Message
    stream_key: str | None = None
    closing: dict[str, Any] | None = None


@dataclass(slots=True, frozen=True)
class Append:
    """Append `data` to the stream. `extras` is one object for all its deltas; do not change it."""

    stream_key: str
    data: str
    extras: dict[str, Any]


@dataclass(slots=True, frozen=True)
class Close:
    """The last append of the stream: no data, final status in `extras`."""

    stream_key: str
    extras: dict[str, Any]


Op: TypeAlias = Create | Append | Close


@dataclass(slots=True)
class _Stream:
    key: str
    extras: dict[str, Any]
    codec: dict[str, str]
    stream_id: str


class Encoder:
    """One pass: the chunks of one assistant message (protocol section 4).

    `step_start_serial` is the serial of the attempt's `ai-step-start`, or STEP_START_PLACEHOLDER; `steer_ids`
    are the steers this pass answers. Stream keys are unique within the turn. Extras that were handed out are
    shared and must be treated as frozen.
    """

    def __init__(
        self,
        ctx: TurnContext,
        codec_message_id: str,
        step_start_serial: str,
        steer_ids: Sequence[str] = (),
    ) -> None:
        self.codec_message_id = codec_message_id
        self._agent = ctx.agent_client_id
        self._before = _headers_before_stream(ctx, codec_message_id)
        self._step_start_serial = step_start_serial
        self.answer_steers(steer_ids)
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._opened = 0

    def answer_steers(self, steer_ids: Sequence[str]) -> None:
        """Stamp these steers on every message that begins from here on."""
        self._after = h.header_map(
            (h.STEP_START_SERIAL, self._step_start_serial),
            (h.STEER_IDS, to_text(list(steer_ids)) if steer_ids else None),
        )
        # Discrete messages share one header map: the codec tier is what differs.
        self._discrete = {**self._before, h.STREAM: "false", **self._after}

    @property
    def open_streams(self) -> tuple[str, ...]:
        """Keys of the streams that have not been closed."""
        return tuple(stream.key for stream in self._streams.values())

    def encode(self, chunk: p.Chunk) -> list[Op]:
        """The operations for one chunk, in order. Raises InvalidArgument for a chunk out of sequence."""
        # The hot path first: a token costs one lookup and one object.
        if isinstance(chunk, p.TextDelta):
            stream = self._stream("text", chunk.id)
            return [Append(stream.key, chunk.delta, stream.extras)]
        if isinstance(chunk, p.ReasoningDelta):
            stream = self._stream("reasoning", chunk.id)
            return [Append(stream.key, chunk.delta, stream.extras)]
        if isinstance(chunk, p.ToolInputDelta):
            stream = self._stream("tool-input", chunk.tool_call_id)
            return [Append(stream.key, chunk.input_text_delta, stream.extras)]
        return self._encode_start_or_end(chunk)

    def cancel(self) -> list[Op]:
        """Close every open stream as cancelled: at a cancel, and when the source ended with streams open."""
        ops: list[Op] = [
            Close(stream.key, self._stream_extras(stream.stream_id, stream.codec, h.CANCELLED))
            for stream in self._streams.values()
        ]
        self._streams.clear()
        return ops

    def _encode_start_or_end(self, chunk: p.Chunk) -> list[Op]:
        match chunk:
            case p.TextStart():
                return self._open("text", chunk.id, _part_headers("text", chunk))
            case p.ReasoningStart():
                return self._open("reasoning", chunk.id, _part_headers("reasoning", chunk))
            case p.ToolInputStart():
                return self._open("tool-input", chunk.tool_call_id, _tool_headers("tool-input", chunk))
            case p.TextEnd():
                return self._close("text", chunk.id, _part_headers("text", chunk))
            case p.ReasoningEnd():
                return self._close("reasoning", chunk.id, _part_headers("reasoning", chunk))
            case p.ToolInputAvailable() if ("tool-input", chunk.tool_call_id) in self._streams:
                return self._close("tool-input", chunk.tool_call_id, _tool_closing_headers(chunk))
            case _:
                return [self._discrete_message(chunk)]

    def _stream(self, kind: str, stream_id: str) -> _Stream:
        stream = self._streams.get((kind, stream_id))
        if stream is None:
            raise InvalidArgument(f"no open {kind} part has the id {stream_id!r}; start it first")
        return stream

    def _open(self, kind: str, stream_id: str, codec: dict[str, str]) -> list[Op]:
        if (kind, stream_id) in self._streams:
            raise InvalidArgument(f"the {kind} part {stream_id!r} is already open")
        stream = _Stream(
            key=f"{self.codec_message_id}/{self._opened}",
            extras=self._stream_extras(stream_id, codec, h.STREAMING),
            codec=codec,
            stream_id=stream_id,
        )
        self._opened += 1
        self._streams[kind, stream_id] = stream
        closing = self._stream_extras(stream_id, codec, h.CANCELLED)
        return [Create(self._message("", None, stream.extras), stream.key, closing)]

    def _close(self, kind: str, stream_id: str, end: dict[str, str]) -> list[Op]:
        stream = self._stream(kind, stream_id)
        del self._streams[kind, stream_id]
        extras = self._stream_extras(stream_id, {**stream.codec, **end}, h.COMPLETE)
        return [Close(stream.key, extras)]

    def _stream_extras(self, stream_id: str, codec: dict[str, str], status: str) -> dict[str, Any]:
        transport = {
            **self._before,
            h.STREAM: "true",
            h.STATUS: status,
            h.STREAM_ID: stream_id,
            **self._after,
        }
        return h.make_extras(transport, codec)

    def _discrete_message(self, chunk: p.Chunk) -> Create:
        codec, payload = _discrete(chunk, self.codec_message_id)
        data, encoding = pack(payload)
        transient = isinstance(chunk, p.Data) and chunk.transient is True
        return Create(
            self._message(data, encoding, h.make_extras(self._discrete, codec, ephemeral=transient))
        )

    def _message(self, data: str, encoding: str | None, extras: dict[str, Any]) -> Message:
        return Message(
            name=h.AI_OUTPUT,
            data=data,
            encoding=encoding,
            client_id=self._agent,
            extras=extras,
            action=MessageAction.CREATE,
        )


def _headers_before_stream(ctx: TurnContext, codec_message_id: str) -> dict[str, str]:
    return h.header_map(
        (h.ROLE, h.ROLE_ASSISTANT),
        (h.CODEC_MESSAGE_ID, codec_message_id),
        (h.RUN_ID, ctx.turn_id),
        (h.RUN_CLIENT_ID, ctx.owner_client_id),
        (h.PARENT, ctx.output_parent or ctx.parent),
        (h.FORK_OF, ctx.fork_of),
        (h.MSG_REGENERATE, ctx.msg_regenerate),
        (h.INVOCATION_ID, ctx.invocation_id),
        (h.INPUT_CLIENT_ID, ctx.input_client_id),
        (h.INPUT_CODEC_MESSAGE_ID, ctx.input_codec_message_id),
        (h.STEP_ID, ctx.step_id),
        (h.STEP_CLIENT_ID, ctx.step_client_id),
    )


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
