"""The interface between the messages of a turn and an application's own shapes (SDK-5).

A codec says how an agent's events become messages, and what a reader makes of them. Client, worker and view all take
one; `codecs` knows those that ship, and names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from selfhost_transport.turns.chunks import Chunk, ReasoningStart, TextStart, ToolInputStart

if TYPE_CHECKING:
    from selfhost_transport.turns.context import TurnContext
    from selfhost_transport.turns.headers import Headers
    from selfhost_transport.turns.inputs import InputForm
    from selfhost_transport.turns.outputs import OutputOperation
    from selfhost_transport.turns.record import Record
    from selfhost_transport.turns.ui import UIMessage
    from selfhost_transport.turns.values import Absent, Json

StreamStart: TypeAlias = TextStart | ReasoningStart | ToolInputStart
"""What opens a message that grows by appends."""


class PassEncoder(Protocol):
    """The writing half, for one assistant message. `outputs.OutputMessages` has all of it but `encode`."""

    codec_message_id: str

    def encode(self, chunk: Chunk) -> list[OutputOperation]:
        """The operations for one chunk; none for what the codec leaves out, such as the brackets around steps.

        Raises InvalidArgument for a chunk out of sequence, and for content that the codec cannot carry.
        """
        ...

    def cancel(self) -> list[OutputOperation]:
        """Close every open stream as cancelled."""
        ...

    def answer_steers(self, steer_ids: Sequence[str]) -> None:
        """Stamp these steers on every message that begins from here on."""
        ...


class Codec(Protocol):
    """One shape of events and messages. Stateless: one object serves all turns. See `codecs.UIMessageCodec`."""

    @property
    def name(self) -> str:
        """What `codec=` calls it."""
        ...

    @property
    def input_form(self) -> InputForm:
        """How clients write users' messages and answers to tool calls."""
        ...

    def chunk_from_json(self, value: Mapping[str, Any]) -> Chunk:
        """One event of an agent that yields plain objects. Raises InvalidArgument for what cannot be carried."""
        ...

    def encoder(
        self, ctx: TurnContext, codec_message_id: str, step_start_serial: str, steer_ids: Sequence[str] = ()
    ) -> PassEncoder:
        """A new assistant message."""
        ...

    def decode_stream_start(self, headers: Headers) -> StreamStart | None:
        """The chunk that opens a received stream; None for a kind the codec does not know."""
        ...

    def decode_output(self, headers: Headers, payload: Json | Absent) -> list[Chunk]:
        """The chunks of a received discrete message; none for a kind the codec does not know."""
        ...

    def message(self, message: UIMessage, records: Iterable[Record]) -> UIMessage:
        """The application's message: `message` is the common reading, `records` what it was read from, in order.

        A subclass of UIMessage adds what the application wants beside its role and parts.
        """
        ...
