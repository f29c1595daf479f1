"""One channel message as a reader holds it: its assembled state, independent of its deliveries (section 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfhost_transport.turns import headers as h
from selfhost_transport.turns.chunks import Chunk
from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.decoder import InputEvent, decode_input, deleted_question
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.inputs import USER_MESSAGE
from selfhost_transport.turns.values import text_of, unpack
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message


class TextBuffer:
    """Text that grows at its end: an append costs its own length, reading joins once."""

    __slots__ = ("_pieces",)

    def __init__(self, text: str = "") -> None:
        self._pieces = [text] if text else []

    def append(self, text: str) -> None:
        """Add text at the end."""
        self._pieces.append(text)

    def __str__(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""


@dataclass(slots=True, eq=False)
class Record:
    """A message in a node's log. `serial` is None while it is only our own, unconfirmed send."""

    serial: str | None
    version: str
    headers: Headers
    client_id: str | None
    codec_message_id: str
    # Exactly one of the three is set, by what the message is.
    stream: TextBuffer | None = None
    chunks: list[Chunk] = field(default_factory=list)
    input: InputEvent | None = None
    status: str | None = None
    # Its message was deleted: what it said is gone, its place in the conversation stays.
    deleted: bool = False

    @property
    def step_id(self) -> str | None:
        """The step it is output of."""
        return self.headers.get(h.STEP_ID)

    def extend(self, delta: str) -> None:
        """Add to the text of a stream."""
        if self.stream is not None:
            self.stream.append(delta)

    @property
    def is_closed(self) -> bool:
        """Whether a stream has its final status."""
        return self.status in (h.COMPLETE, h.CANCELLED)


def version_of(message: Message) -> str | None:
    """The version a delivery brings; for a create, its serial."""
    if message.version is not None and message.version.serial:
        return message.version.serial
    return message.serial


def read_input(message: Message, headers: Headers) -> Record | None:
    """The record of an `ai-input`, or None when it folds to nothing."""
    codec_message_id, deleted = headers.codec_message_id, _is_deleted_question(message, headers)
    event = deleted_question(headers) if deleted else decode_input(headers, unpack(message))
    if event is None or codec_message_id is None:
        return None
    version = version_of(message) or ""
    return Record(
        message.serial, version, headers, message.client_id, codec_message_id, input=event, deleted=deleted
    )


def _is_deleted_question(message: Message, headers: Headers) -> bool:
    """Answers to calls and requests are not undone by a deletion: the turn has gone on with them."""
    return message.action is MessageAction.DELETE and headers.kind == USER_MESSAGE


def read_output(message: Message, headers: Headers, codec: Codec) -> Record | None:
    """The record of an `ai-output`, or None when it folds to nothing."""
    codec_message_id, version = headers.codec_message_id, version_of(message) or ""
    if codec_message_id is None:
        return None
    record = Record(message.serial, version, headers, message.client_id, codec_message_id)
    record.deleted = message.action is MessageAction.DELETE
    if not headers.is_stream:
        chunks = codec.decode_output(headers, unpack(message))
        record.chunks = [] if record.deleted else chunks
        return record if chunks else None
    if codec.decode_stream_start(headers) is None:
        return None
    if record.deleted:
        record.stream = TextBuffer()
        return record
    # The data of a create is not used: it is the first delta of nothing (section 4).
    record.stream = TextBuffer("" if message.action in (None, 0) else text_of(message))
    record.status = headers.status
    return record
