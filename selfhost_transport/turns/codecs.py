"""The codecs that ship, and the choice of one by name or by what a client wrote (SDK-5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import decoder, decoder_openai, messages_openai
from selfhost_transport.turns.codec import Codec, PassEncoder, StreamStart
from selfhost_transport.turns.context import OPENAI_RESPONSES, TurnContext
from selfhost_transport.turns.encoder import Encoder
from selfhost_transport.turns.encoder_openai import OpenAIEncoder
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.inputs import OPENAI_INPUTS, UI_INPUTS, InputForm
from selfhost_transport.turns.record import Record
from selfhost_transport.turns.ui import UIMessage
from selfhost_transport.turns.values import Absent, Json

UI_MESSAGE_CODEC: Final = "vercel-ui-message"


class UIMessageCodec:
    """The default: the Vercel AI SDK's UI message stream (protocol section 5). A base for codecs of one's own.

    What other codecs write is read as parts of a UI message as far as it can be.
    """

    @property
    def name(self) -> str:
        """The JS SDK's name of it."""
        return UI_MESSAGE_CODEC

    @property
    def input_form(self) -> InputForm:
        """Text, files and data parts, with the application's message id."""
        return UI_INPUTS

    def chunk_from_json(self, value: Mapping[str, Any]) -> p.Chunk:
        """A chunk of a UI message stream."""
        return p.chunk_from_json(value)

    def encoder(
        self, ctx: TurnContext, codec_message_id: str, step_start_serial: str, steer_ids: Sequence[str] = ()
    ) -> PassEncoder:
        """A new assistant message."""
        return Encoder(ctx, codec_message_id, step_start_serial, steer_ids)

    def decode_stream_start(self, headers: Headers) -> StreamStart | None:
        """Text, reasoning, or the arguments of a tool call."""
        return decoder.decode_stream_start(headers)

    def decode_output(self, headers: Headers, payload: Json | Absent) -> list[p.Chunk]:
        """Any discrete chunk."""
        return decoder.decode_output(headers, payload)

    def message(self, message: UIMessage, records: Iterable[Record]) -> UIMessage:
        """The common reading is the application's."""
        return message


class OpenAICodec(UIMessageCodec):
    """Stream events and items of the OpenAI Responses API (protocol section 6).

    Agents yield the events of the model as they come, or text and chunks as with any codec. Messages are
    `OpenAIMessage`s, whose `items` are what the API takes as input.
    """

    @property
    def name(self) -> str:
        """The JS SDK's name of it."""
        return OPENAI_RESPONSES

    @property
    def input_form(self) -> InputForm:
        """Text parts; calls are named by `call_id`."""
        return OPENAI_INPUTS

    def chunk_from_json(self, value: Mapping[str, Any]) -> p.Chunk:
        """A Responses stream event, a `function_call_output`, or a `tool-approval-request`."""
        if not isinstance(value.get("type"), str):
            raise InvalidArgument("an event needs a string field `type`")
        return p.Native(value)

    def encoder(
        self, ctx: TurnContext, codec_message_id: str, step_start_serial: str, steer_ids: Sequence[str] = ()
    ) -> PassEncoder:
        """A new assistant message."""
        return OpenAIEncoder(ctx, codec_message_id, step_start_serial, steer_ids)

    def decode_output(self, headers: Headers, payload: Json | Absent) -> list[p.Chunk]:
        """The event itself where it is one of this codec's, and the chunk that says the same if there is one."""
        event = decoder_openai.decode_event(headers, payload)
        return [*([event] if event is not None else []), *super().decode_output(headers, payload)]

    def message(self, message: UIMessage, records: Iterable[Record]) -> UIMessage:
        """With the items and the states of its tool calls."""
        return messages_openai.fold(message, records)


def codec_of(records: Iterable[Record]) -> Codec | None:
    """The codec that earlier messages of a conversation are in, where they tell; None: they do not."""
    for record in records:
        if (
            record.headers.kind in decoder_openai.OWN_KINDS
            or record.headers.field("partType") == "input_text"
        ):
            return OPENAI
    return None


UI_MESSAGES: Final[Codec] = UIMessageCodec()
OPENAI: Final[Codec] = OpenAICodec()
_BY_NAME: Final[dict[str, Codec]] = {codec.name: codec for codec in (UI_MESSAGES, OPENAI)}


def codec_named(codec: Codec | str | None) -> Codec:
    """The codec of that name, the given one, or the default for None. Raises InvalidArgument for an unknown name."""
    if codec is None:
        return UI_MESSAGES
    if not isinstance(codec, str):
        return codec
    if codec not in _BY_NAME:
        raise InvalidArgument(f"there is no codec {codec!r}; known are {', '.join(sorted(_BY_NAME))}")
    return _BY_NAME[codec]
