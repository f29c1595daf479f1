"""How large a publish counts (protocol section 6.7)."""

from __future__ import annotations

from collections.abc import Iterable

from selfhost_transport.errors import MessageTooLarge
from selfhost_transport.wire.codec import Format, pack
from selfhost_transport.wire.message import Message


def message_size(message: Message) -> int:
    """Bytes of name, clientId, data and extras as JSON."""
    size = text_size(message.name) + text_size(message.client_id) + data_size(message.data)
    return size if message.extras is None else size + len(pack(message.extras, Format.JSON))


def publish_size(messages: Iterable[Message]) -> int:
    """Bytes of all messages of one publish."""
    return sum(message_size(message) for message in messages)


def check_publish_size(messages: Iterable[Message], limit: int) -> None:
    """Raise MessageTooLarge 40009 when a publish exceeds the limit, in bytes."""
    size = publish_size(messages)
    if size > limit:
        raise MessageTooLarge(f"the publish has {size} bytes, the limit is {limit}; send less or split it")


def data_size(data: str | bytes | None) -> int:
    """Bytes of a payload, text in UTF-8."""
    return len(data) if isinstance(data, bytes) else text_size(data)


def text_size(text: str | None) -> int:
    """Bytes of a text in UTF-8."""
    if not text:
        return 0
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
