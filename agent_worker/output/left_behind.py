"""What an attempt left in the session when its worker was lost, for the next one to continue with (REC-8).

A new start of the step would take the shown text away in every reader, until it is there again. So an agent that
continues works on in the same messages, under the same start: readers see a pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfhost_transport.store.entries import Ref
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.values import unpack
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import parse_position

_RESULTS = (p.ToolOutputAvailable, p.ToolOutputError, p.ToolOutputDenied)


@dataclass(frozen=True, slots=True)
class OpenStream:
    """A message that was left open. `closing`: the extras that close it as cancelled."""

    ref: Ref
    kind: str
    stream_id: str
    codec: dict[str, str]
    closing: dict[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """The last assistant message of an attempt. `calls`: those of tools that got no result."""

    message_id: str
    streams: tuple[OpenStream, ...]
    # Text and reasoning parts that it has, open ones too.
    parts: int
    in_step: bool
    finished: bool
    calls: tuple[str, ...]


def left_behind(messages: Sequence[Message], codec: Codec, step_start: str) -> LeftBehind | None:
    """What the attempt with this start left, of a turn's messages, oldest first; None: nothing."""
    own = [
        (message, headers)
        for message in messages
        if message.name == h.AI_OUTPUT
        and (headers := h.read_headers(message)) is not None
        and headers.get(h.STEP_START_SERIAL) == step_start
        and headers.codec_message_id
    ]
    if not own:
        return None
    message_id = str(own[-1][1].codec_message_id)
    last = [(message, headers) for message, headers in own if headers.codec_message_id == message_id]
    seen: list[p.Chunk] = []
    for message, headers in last:
        start = codec.decode_stream_start(headers) if headers.is_stream else None
        seen += [start] if start is not None else codec.decode_output(headers, unpack(message))
    return LeftBehind(
        message_id,
        tuple(_stream(message, headers) for message, headers in last if headers.status == h.STREAMING),
        sum(isinstance(chunk, p.TextStart | p.ReasoningStart) for chunk in seen),
        _in_step(seen),
        any(isinstance(chunk, p.Finish) for chunk in seen),
        _unanswered(seen),
    )


def _stream(message: Message, headers: h.Headers) -> OpenStream:
    position, _, index = parse_position(message.serial or "")
    transport = {**headers.transport, h.STATUS: h.CANCELLED}
    return OpenStream(
        Ref(position, index or 0),
        headers.kind,
        headers.get(h.STREAM_ID) or "",
        dict(headers.codec),
        h.make_extras(transport, headers.codec),
        str(message.data or ""),
    )


def _in_step(seen: Sequence[p.Chunk]) -> bool:
    brackets = [chunk for chunk in seen if isinstance(chunk, p.StartStep | p.FinishStep)]
    return bool(brackets) and isinstance(brackets[-1], p.StartStep)


def _unanswered(seen: Sequence[p.Chunk]) -> tuple[str, ...]:
    calls = [
        chunk.tool_call_id
        for chunk in seen
        if isinstance(chunk, p.ToolInputAvailable) and not chunk.provider_executed
    ]
    answered = {chunk.tool_call_id for chunk in seen if isinstance(chunk, _RESULTS)}
    return tuple(call for call in calls if call not in answered)
