"""The channel operations of one pass of an agent: its header sets, its streams, its discrete messages (section 4).

What every codec's encoder shares; a codec adds what its events are called and carry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.values import Absent, Json, pack, to_text
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message


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


OutputOperation: TypeAlias = Create | Append | Close


@dataclass(slots=True)
class _Stream:
    key: str
    extras: dict[str, Any]
    codec: Mapping[str, str]
    stream_id: str


class OutputMessages:
    """One pass: the messages of one assistant message.

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
        # By kind and the codec's own id of the stream.
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

    def cancel(self) -> list[OutputOperation]:
        """Close every open stream as cancelled: at a cancel, and when the source ended with streams open."""
        ops: list[OutputOperation] = [
            Close(stream.key, self._stream_extras(stream.stream_id, stream.codec, h.CANCELLED))
            for stream in self._streams.values()
        ]
        self._streams.clear()
        return ops

    def is_open(self, kind: str, stream_id: str) -> bool:
        """Whether this stream was opened and not closed."""
        return (kind, stream_id) in self._streams

    def open(self, kind: str, stream_id: str, codec: Mapping[str, str]) -> list[OutputOperation]:
        """Open a stream; `codec` are its codec headers. Raises InvalidArgument when it is open already."""
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

    def take_up(self, kind: str, stream_id: str, codec: Mapping[str, str]) -> str:
        """Continue with a stream that an earlier attempt left open; its key."""
        extras = self._stream_extras(stream_id, codec, h.STREAMING)
        stream = _Stream(f"{self.codec_message_id}/{self._opened}", extras, codec, stream_id)
        self._opened += 1
        self._streams[kind, stream_id] = stream
        return stream.key

    def append(self, kind: str, stream_id: str, text: str) -> list[OutputOperation]:
        """More text of an open stream. Raises InvalidArgument when it is not open."""
        stream = self._stream(kind, stream_id)
        return [Append(stream.key, text, stream.extras)]

    def close(self, kind: str, stream_id: str, end: Mapping[str, str] | None = None) -> list[OutputOperation]:
        """Complete a stream; `end` are codec headers laid over those of its start."""
        stream = self._stream(kind, stream_id)
        del self._streams[kind, stream_id]
        codec = {**stream.codec, **end} if end else stream.codec
        return [Close(stream.key, self._stream_extras(stream_id, codec, h.COMPLETE))]

    def discrete(
        self, codec: Mapping[str, str], payload: Json | Absent = "", *, ephemeral: bool = False
    ) -> Create:
        """A message of its own; `ephemeral` ones are delivered and not stored."""
        data, encoding = pack(payload)
        return Create(
            self._message(data, encoding, h.make_extras(self._discrete, codec, ephemeral=ephemeral))
        )

    def _stream(self, kind: str, stream_id: str) -> _Stream:
        stream = self._streams.get((kind, stream_id))
        if stream is None:
            raise InvalidArgument(f"no open {kind} part has the id {stream_id!r}; start it first")
        return stream

    def _stream_extras(self, stream_id: str, codec: Mapping[str, str], status: str) -> dict[str, Any]:
        transport = {
            **self._before,
            h.STREAM: "true",
            h.STATUS: status,
            h.STREAM_ID: stream_id,
            **self._after,
        }
        return h.make_extras(transport, codec)

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
