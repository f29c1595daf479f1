"""What an application may give as a user's message, and the parts it becomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from selfhost_transport.client.arguments import shown
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import headers as h
from selfhost_transport.turns.inputs import UserPart
from selfhost_transport.turns.ui import (
    ConversationMessage,
    DataPart,
    FilePart,
    TextPart,
    UIMessage,
    part_from_json,
)

Item: TypeAlias = "str | UserPart | UIMessage | ConversationMessage | Mapping[str, Any]"
Content: TypeAlias = "Item | Sequence[Item]"
"""A user's message: a text; a part or a UI message, as an object or in its JSON form; or a list of these.

A list is one message with all their parts. A message's `metadata` has no place on the wire.
"""

_ACCEPTED: Final = (
    "a text, a TextPart, FilePart or DataPart, a user's UIMessage, their JSON forms "
    '({"type": "text", "text": …}, {"type": "file", "mediaType": …, "url": …}, {"type": "data-…", "data": …}, '
    '{"id": …, "role": "user", "parts": […]}), or a list of these'
)


@dataclass(frozen=True, slots=True)
class UserContent:
    """The parts of one message, and the application's own id for it."""

    parts: tuple[UserPart, ...]
    message_id: str | None = None


def read_content(content: Content) -> UserContent:
    """The parts of an application's message. Raises InvalidArgument that lists the accepted forms."""
    items = [content] if _is_item(content) else content
    if not isinstance(items, Sequence) or isinstance(items, bytes | bytearray | memoryview):
        raise _refusal(f"not {shown(content)}")
    ids = [message_id for item in items if (message_id := _message_id(item)) is not None]
    return UserContent(tuple(part for item in items for part in _parts(item)), ids[0] if ids else None)


def _is_item(value: object) -> bool:
    return isinstance(value, str | TextPart | FilePart | DataPart | UIMessage | ConversationMessage | Mapping)


def _parts(item: object) -> Iterator[UserPart]:
    match item:
        case str():
            yield TextPart(item)
        case TextPart() | FilePart() | DataPart():
            yield _checked(item)
        case ConversationMessage():
            yield from _parts_of_message(item.message.role, item.message.parts)
        case UIMessage():
            yield from _parts_of_message(item.role, item.parts)
        case {"parts": [*parts], "role": role}:
            yield from _parts_of_message(role, parts)
        case {"parts": [*parts]}:
            yield from _parts_of_message(h.ROLE_USER, parts)
        case {"content": str(text), "role": role}:
            yield from _parts_of_message(role, [text])
        case {"type": _}:
            yield from _parts_of_message(h.ROLE_USER, [item])
        case _:
            raise _refusal(f"not {shown(item)}")


def _parts_of_message(role: object, parts: Sequence[object]) -> Iterator[UserPart]:
    if role != h.ROLE_USER:
        raise _refusal(f"not a message of role {role!r}")
    for part in parts:
        match part:
            case str():
                yield TextPart(part)
            case Mapping():
                yield _checked(part_from_json(part))
            case _:
                yield _checked(part)


def _checked(part: object) -> UserPart:
    match part:
        case TextPart(str()) | FilePart(str(), str()):
            return part
        case DataPart(str(kind)) if kind.startswith("data-"):
            return part
        case _:
            raise _refusal(f"not {shown(part)}")


def _message_id(item: object) -> str | None:
    match item:
        case UIMessage(id=found) | ConversationMessage(message=UIMessage(id=found)):
            return found or None
        case {"id": str(found), "parts": _} | {"id": str(found), "content": _}:
            return found or None
    return None


def _refusal(what: str) -> InvalidArgument:
    return InvalidArgument(f"a message is {_ACCEPTED}; {what}")
