"""Makes records of channel messages (section 4)."""

from __future__ import annotations

from selfhost_transport.turns.codec import Codec
from selfhost_transport.turns.decoder import decode_input, deleted_question
from selfhost_transport.turns.headers import Headers
from selfhost_transport.turns.inputs import USER_MESSAGE
from selfhost_transport.turns.record import Record, TextBuffer
from selfhost_transport.turns.values import text_of, unpack
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message


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
