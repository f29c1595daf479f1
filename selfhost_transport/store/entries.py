"""The entry: what a session's log, its notifications and its history are made of.

On Redis an entry is `<head>\\n<body>`: the head is text that scripts can build and read, the body is
msgpack that only Python reads. There is one form for the log, the notification and the history, and so
one decoder and one delivery path.

| head            | body                                             | meaning                                        |
|-----------------|--------------------------------------------------|------------------------------------------------|
| `C<payloads>`   | data of all messages, then a list of their maps  | one publish                                    |
| `E<payloads>`   | the same                                         | an ephemeral publish: delivered, never replayed|
| `A<ref>`        | [data] or [data, extras] or [data, extras, op]   | append to the message `ref`                    |
| `U<ref>`, `D<ref>` | message map, the whole new state              | update or delete of the message `ref`          |
| `P`             | list of [action, id or nil, member map]          | presence                                       |
| `N<ref>`        | [action, annotation map]                         | annotation of the message `ref`                |
| `S<ref>`        | [list of tallies, name], before: list of tallies | the message's new summary of annotations       |

`ref` names a message inside its session: `<ms>-<counter>:<index>`. `payloads` has, for each message,
`<letter><length>:<encoding>;` where the letter is the type of `data`: `s` text, `b` bytes, `-` absent. The data
stand outside the msgpack, so that a script can take them without understanding it. A member map is packed on its
own and kept with the member, so that a script can write its leave with the member's last data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, cast

import msgpack

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.wire.actions import AnnotationAction, MessageAction, PresenceAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.message import Message, Version
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position, format_item
from selfhost_transport.wire.summary import Tally


@dataclass(frozen=True, slots=True)
class Ref:
    """A message inside its session: the position of its create, and its index in that publish."""

    position: Position
    index: int = 0

    def __str__(self) -> str:
        return f"{self.position.stream_id}:{self.index}"

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Read `<ms>-<counter>:<index>`."""
        position, _, index = text.partition(":")
        return cls(Position.parse_id(position), int(index))

    def serial(self, epoch: str) -> str:
        """The item serial clients see."""
        return format_item(self.position, epoch, self.index)


@dataclass(frozen=True, slots=True)
class Written:
    """An acknowledged write of messages: where they are."""

    position: Position
    epoch: str

    def serials(self, count: int) -> list[str]:
        """The item serials of its `count` messages."""
        return [Ref(self.position, index).serial(self.epoch) for index in range(count)]


@dataclass(frozen=True, slots=True)
class MessageOperation:
    """Who changed a message and why; the `version` metadata of section 7.3.

    `index`: of the version at its position; appends that were written as one have a version each.
    """

    client_id: str | None = None
    description: str | None = None
    metadata: dict[str, str] | None = None
    index: int = 0

    def pack(self) -> list[Any] | None:
        """A list, or None when there is nothing to tell."""
        fields = [self.client_id, self.description, self.metadata]
        if self.index:
            return [*fields, self.index]
        return fields if any(field is not None for field in fields) else None

    @classmethod
    def unpack(cls, packed: list[Any] | None) -> MessageOperation:
        """The reverse of `pack`."""
        return cls(*packed) if packed else NO_OPERATION

    def version(self, position: Position, epoch: str) -> Version:
        """The version this operation created at `position`."""
        return Version(
            serial=format_item(position, epoch, self.index),
            timestamp=position.ms,
            client_id=self.client_id,
            description=self.description,
            metadata=self.metadata,
        )


NO_OPERATION = MessageOperation()


@dataclass(frozen=True, slots=True)
class Created:
    """One publish: its messages, in order, without serials (they follow from the position)."""

    position: Position
    messages: tuple[Message, ...]
    ephemeral: bool = False


class Appended(NamedTuple):
    """A chunk added to the data of a message. `extras` None: unchanged. A tuple, because there is one per token."""

    position: Position
    ref: Ref
    data: str | bytes
    extras: dict[str, Any] | None
    operation: MessageOperation


@dataclass(frozen=True, slots=True)
class Replaced:
    """An update or a delete: the message's whole new state."""

    position: Position
    ref: Ref
    action: MessageAction
    message: Message
    operation: MessageOperation


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """Members that entered, updated or left (protocol section 8.1); never empty."""

    position: Position
    presence: tuple[PresenceMessage, ...]


@dataclass(frozen=True, slots=True)
class Annotated:
    """An annotation that was added to a message, or taken back, complete but for the serials."""

    position: Position
    ref: Ref
    annotation: Annotation


@dataclass(frozen=True, slots=True)
class Summarised:
    """What all annotations of a message amount to now."""

    position: Position
    ref: Ref
    tallies: tuple[Tally, ...]
    name: str | None = None


Entry = Created | Appended | Replaced | PresenceChanged | Annotated | Summarised


def pack_created(messages: Sequence[Message], *, ephemeral: bool = False) -> bytes:
    """The entry of a publish. Raises InvalidArgument for an encoding that is no encoding chain."""
    head, data = ["E" if ephemeral else "C"], []
    for message in messages:
        if message.data is None and message.encoding is None:
            head.append("-0:;")
            continue
        raw = message.data.encode() if isinstance(message.data, str) else (message.data or b"")
        encoding = message.encoding or ""
        if not encoding.isprintable() or ";" in encoding:
            raise InvalidArgument("an encoding is a chain of names separated by `/`", code=40013)
        head.append(f"{type_letter(message.data)}{len(raw)}:{encoding};")
        data.append(raw)
    maps = _pack([_message_fields(message) for message in messages])
    return b"".join(("".join(head).encode(), b"\n", *data, maps))


def pack_append_body(
    data: str | bytes, extras: dict[str, Any] | None = None, operation: MessageOperation = NO_OPERATION
) -> bytes:
    """The body of an append; scripts put the head in front of it."""
    packed_operation = operation.pack()
    body: list[Any] = [data]
    if extras is not None or packed_operation is not None:
        body.append(extras)
    if packed_operation is not None:
        body.append(packed_operation)
    return _pack(body)


def pack_replaced_body(message: Message, operation: MessageOperation) -> bytes:
    """The body of an update or delete: the new state, and the operation."""
    fields = _message_fields(message) | {"data": message.data, "encoding": message.encoding}
    if message.annotations is not None:
        fields["annotations"] = message.annotations
    return _pack([fields, operation.pack()])


def unpack_entry(position: Position, raw: bytes) -> Entry:
    """The entry at `position`, from the bytes of the log, of a notification or of the history."""
    head, _, body = raw.partition(b"\n")
    kind = head[:1]
    if kind in (b"C", b"E"):
        return Created(position, _created_messages(head, body), kind == b"E")
    if kind == b"A":
        return _appended(position, _appended_to(head), body)
    content = unpack(body)
    if kind == b"P":
        return PresenceChanged(position, _presence_messages(position, content))
    ref = Ref.parse(head[1:].decode())
    if kind == b"N":
        return Annotated(position, ref, _annotation(position, content))
    if kind == b"S":
        # Of two elements, a second tally is a list; the message's name is not.
        named = len(content) == 2 and not isinstance(content[1], list)
        lines, name = content if named else (content, None)
        return Summarised(position, ref, unpack_summary(lines), name)
    action = MessageAction.UPDATE if kind == b"U" else MessageAction.DELETE
    return Replaced(position, ref, action, _message(content[0]), MessageOperation.unpack(content[1]))


@lru_cache(maxsize=2048)
def _appended_to(head: bytes) -> Ref:
    """The message that an append names: the same one, token after token."""
    return Ref.parse(head[1:].decode())


def _appended(position: Position, ref: Ref, body: bytes) -> Appended:
    # A token is a list of one short text: read without the unpacker, for there are many of them.
    if body[:1] == b"\x91" and len(body) == 2 + (body[1] & 0x1F) and 0xA0 <= body[1] <= 0xBF:
        return Appended(position, ref, body[2:].decode(), None, NO_OPERATION)
    content = unpack(body)
    extras = content[1] if len(content) > 1 else None
    operation = MessageOperation.unpack(content[2]) if len(content) > 2 else NO_OPERATION
    return Appended(position, ref, content[0], extras, operation)


def pack_annotation_body(annotation: Annotation) -> bytes:
    """The body of an annotation's entry; scripts put the head in front of it."""
    fields = {name: value for name in _ANNOTATION_FIELDS if (value := getattr(annotation, name)) is not None}
    return _pack([int(annotation.action or AnnotationAction.CREATE), fields])


def unpack_summary(lines: Sequence[Any]) -> tuple[Tally, ...]:
    """The tallies of a message, as annotate.lua keeps them."""
    return tuple(
        Tally(kind, name, total, unidentified, clients, tuple((client, count) for client, count in listed))
        for kind, name, total, unidentified, clients, listed in lines
    )


def _annotation(position: Position, content: Sequence[Any]) -> Annotation:
    action, fields = content
    return Annotation(action=AnnotationAction(action), timestamp=position.ms, **fields)


def pack_member(presence: PresenceMessage, connection_id: str) -> bytes:
    """A member's stored fields: everything except action, id and time, which its entry adds.

    A member of no connection ('') has none.
    """
    member = replace(presence, connection_id=connection_id or None)
    return _pack({name: value for name in _MEMBER_FIELDS if (value := getattr(member, name)) is not None})


def pack_extras(extras: Mapping[str, Any]) -> bytes:
    """Extras that replace those of a member map: a script appends them, and the later value of a key counts."""
    return _pack({"extras": extras})


def unpack_member(action: PresenceAction, presence_id: str | None, ms: int, raw: bytes) -> PresenceMessage:
    """The reverse of `pack_member`; `ms`: when the member was last changed."""
    return PresenceMessage(action=action, id=presence_id, timestamp=ms, **unpack(raw))


def _presence_messages(position: Position, items: Sequence[Any]) -> tuple[PresenceMessage, ...]:
    return tuple(
        PresenceMessage(
            action=PresenceAction(action),
            id=presence_id if presence_id is not None else f"left-{position.stream_id}:{index}",
            timestamp=position.ms,
            **member,
        )
        for index, (action, presence_id, member) in enumerate(items)
    )


_ANNOTATION_FIELDS = (
    "id", "type", "name", "count", "data", "encoding", "extras", "client_id", "connection_id",
)  # fmt: skip
_MEMBER_FIELDS = ("client_id", "connection_id", "data", "encoding", "extras")
_FIELDS = ("id", "name", "client_id", "connection_id", "extras")


def _message_fields(message: Message) -> dict[str, Any]:
    """A message's stored fields; those that follow from the position are left out."""
    return {name: value for name in _FIELDS if (value := getattr(message, name)) is not None}


def _message(fields: dict[str, Any]) -> Message:
    return Message(**fields)


def _created_messages(head: bytes, body: bytes) -> tuple[Message, ...]:
    payloads, start = [], 0
    for payload in head[1:].decode().split(";")[:-1]:
        size, _, encoding = payload[1:].partition(":")
        end = start + int(size)
        payloads.append((_data(payload[0], body[start:end]), encoding or None))
        start = end
    maps = unpack(body[start:])
    return tuple(
        Message(data=data, encoding=encoding, **fields)
        for (data, encoding), fields in zip(payloads, maps, strict=True)
    )


def _data(letter: str, raw: bytes) -> str | bytes | None:
    if letter == "s":
        return raw.decode()
    return raw if letter == "b" else None


def type_letter(data: str | bytes | None) -> str:
    """`s` text, `b` bytes, `-` absent."""
    if data is None:
        return "-"
    return "s" if isinstance(data, str) else "b"


def _pack(value: Any) -> bytes:
    return cast(bytes, msgpack.packb(value, use_bin_type=True))


def pack_value(value: Any) -> bytes:
    """Any JSON-like value as msgpack, with text and bytes distinguished."""
    return _pack(value)


def unpack(raw: bytes) -> Any:
    """The reverse of `pack_value`."""
    return msgpack.unpackb(raw, raw=False, strict_map_key=False)
