"""Entries as frames: each is encoded once per format, envelope and channel name, the websocket's header included.

There is one delivery path: live entries, backlog and held frames are all `Delivery` objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

from gateway.fanout.presence_frames import presence_frame
from selfhost_transport.store.annotations import complete as complete_annotation
from selfhost_transport.store.entries import (
    Annotated,
    Appended,
    Created,
    Entry,
    PresenceChanged,
    Ref,
    Replaced,
    Summarised,
)
from selfhost_transport.turns.withholding import NOTHING, Hidden, is_hidden
from selfhost_transport.wire.actions import Action, MessageAction
from selfhost_transport.wire.frame import Frame, encode_frame
from selfhost_transport.wire.message import Format, Message, Version
from selfhost_transport.wire.message_filter import MessageFilter
from selfhost_transport.wire.serial import Position, format_item, format_position
from selfhost_transport.wire.summary import summary_to_wire
from selfhost_transport.wire.template import AppendTemplate
from selfhost_transport.wire.websocket import ws_frame_header

_LITTLE_DATA = 256
"""Characters or bytes."""


Envelope: TypeAlias = Callable[[bytes, str], bytes]
"""From an encoded frame and its channelSerial to what a reader is written."""


def bare(payload: bytes, serial: str) -> bytes:
    """The frame alone, for readers that are no websockets."""
    return payload


class Variant(NamedTuple):
    """What frames depend on beside the entry: the format, the channel as the client names it, and what is left out.

    `whole`: appends are delivered as their message's current state. `filter`: that of a derived channel, always `whole`,
    since a message may begin to match it after its create. `envelope`: None for that of a websocket.
    """

    fmt: Format
    channel: str
    hidden: Hidden = NOTHING
    whole: bool = False
    filter: MessageFilter | None = None
    envelope: Envelope | None = None

    @property
    def is_selective(self) -> bool:
        """Whether anything is left out."""
        return bool(self.hidden) or self.filter is not None

    def passes(self, message: Message) -> bool:
        """Whether a message is delivered."""
        if is_hidden(message, self.hidden):
            return False
        return self.filter is None or self.filter.matches(message)


class OpenMessage:
    """What an append's frame repeats of its message. Replaced, never changed, when the extras change."""

    __slots__ = ("_epoch", "_header", "_stored", "ref", "templates")

    def __init__(self, ref: Ref, stored: Message, epoch: str) -> None:
        self.ref = ref
        self.templates: dict[Variant, AppendTemplate] = {}
        # Most messages are never appended to: what is repeated is made for the first append, unless that would
        # keep much data until then.
        self._stored = stored
        self._epoch = epoch
        self._header: Message | None = None
        if stored.data is not None and len(stored.data) > _LITTLE_DATA:
            self._stored = self.header

    @property
    def header(self) -> Message:
        """The message without data: name, id, serial, timestamp, author, extras, encoding."""
        if self._header is None:
            self._header = _complete(self._stored, self.ref, self._epoch, MessageAction.APPEND, None)
            self._header.data = None
        return self._header

    def template(self, variant: Variant) -> AppendTemplate:
        """The append frame of this message, encoded but for what changes."""
        template = self.templates.get(variant)
        if template is None:
            template = self.templates[variant] = AppendTemplate(variant.channel, self.header, variant.fmt)
        return template

    def with_changes(self, extras: dict[str, object] | None, name: str | None = None) -> OpenMessage:
        """The message after an append or update that replaced extras or name."""
        header = replace(self.header, extras=extras if extras is not None else self.header.extras)
        if name is not None:
            header.name = name
        return OpenMessage(self.ref, header, self._epoch)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """A message's whole current state, for readers that have not seen it; `version`: it includes everything up to there."""

    ref: Ref
    message: Message
    version: Position


class Delivery:
    """One entry for delivery to subscriptions.

    `ref` is set for changes of a message: an append or a replacement. `aggregate_only`: an append that stands for
    later ones too, so that only the message's current state will do. `is_append`: the frame is a delta, which makes no
    sense to who has not seen the message.
    """

    __slots__ = (
        "_encoded",
        "_entry",
        "_epoch",
        "_open",
        "aggregate_only",
        "connection_id",
        "is_annotation",
        "is_append",
        "is_presence",
        "position",
        "ref",
    )

    def __init__(self, entry: Entry, epoch: str, message: OpenMessage | None = None) -> None:
        self.position = entry.position
        self.ref: Ref | None = None
        self.connection_id: str | None = None
        self.aggregate_only = False
        # What goes to those only who asked for it, and is not replayed.
        self.is_presence = self.is_annotation = False
        self.is_append = False
        self._entry = entry
        self._epoch = epoch
        self._open = message
        self._encoded: dict[Variant, bytes] = {}
        if isinstance(entry, Appended):
            self.is_append = True
            self.ref = entry.ref
            if message is None:
                self.aggregate_only = True
            else:
                self.connection_id = message.header.connection_id
        elif isinstance(entry, Replaced):
            self.ref = entry.ref
            self.connection_id = entry.message.connection_id
        elif isinstance(entry, Created):
            self.connection_id = entry.messages[0].connection_id if entry.messages else None
        elif isinstance(entry, PresenceChanged):
            # All changes of one entry are of one connection.
            self.connection_id = entry.presence[0].connection_id
            self.is_presence = True
        elif isinstance(entry, Annotated):
            self.is_annotation = True

    def adopt(self, message: OpenMessage) -> OpenMessage:
        """Make an append to a message unknown until now a delta. Returns the message after it."""
        if self._open is None and isinstance(self._entry, Appended):
            extras = self._entry.extras
            self._open = message if extras is None else message.with_changes(extras)
            self.aggregate_only = False
            self.connection_id = message.header.connection_id
        return self._open or message

    def conflated(self) -> Delivery:
        """The same append, to be delivered as its message's current state."""
        copy = Delivery(self._entry, self._epoch, self._open)
        copy.aggregate_only = True
        return copy

    def is_hidden(self, variant: Variant) -> bool:
        """Whether nothing of it is delivered as a variant that leaves something out.

        Unknown for appends to an uncached message: the message's state decides.
        """
        entry = self._entry
        if isinstance(entry, Appended):
            return self._open is not None and not variant.passes(self._open.header)
        if isinstance(entry, Replaced):
            return not variant.passes(entry.message)
        if isinstance(entry, Summarised) and variant.filter is not None:
            return not variant.filter.matches(Message(name=entry.name))
        return isinstance(entry, Created) and not any(variant.passes(message) for message in entry.messages)

    def frame(self, variant: Variant) -> bytes:
        """What is written, envelope included. For a variant that leaves something out, ask `is_hidden` first."""
        encoded = self._encoded.get(variant)
        if encoded is None:
            encoded = self._encoded[variant] = self._encode(variant)
        return encoded

    def _encode(self, variant: Variant) -> bytes:
        entry = self._entry
        if isinstance(entry, Appended) and self._open is not None:
            return self._encode_append(entry, self._open, variant)
        if isinstance(entry, Annotated):
            return encode_for(variant, annotation_frame(variant.channel, self._epoch, entry))
        if isinstance(entry, PresenceChanged):
            frame = presence_frame(variant.channel, self._epoch, entry.position, entry.presence)
            return encode_for(variant, frame)
        messages = self._messages(entry)
        if variant.is_selective and isinstance(entry, Created):
            messages = [message for message in messages if variant.passes(message)]
        return encode_messages(variant, self.position, self._epoch, messages)

    def _encode_append(self, entry: Appended, message: OpenMessage, variant: Variant) -> bytes:
        serial = format_position(entry.position, self._epoch)
        operation = entry.operation
        version = f"{serial}:{operation.index:03d}"
        if operation.description is not None or operation.metadata is not None:
            delta = replace(
                message.header,
                data=entry.data,
                action=MessageAction.APPEND,
                version=operation.version(entry.position, self._epoch),
            )
            return encode_messages(variant, self.position, self._epoch, [delta])
        payload = message.template(variant).frame(
            serial, entry.data, version, entry.position.ms, version_client_id=operation.client_id
        )
        if variant.envelope is not None:
            return variant.envelope(payload, serial)
        return ws_frame_header(variant.fmt is Format.JSON, len(payload)) + payload

    def _messages(self, entry: Entry) -> list[Message]:
        if isinstance(entry, Created):
            return complete_messages(entry, self._epoch)
        if isinstance(entry, Replaced):
            version = entry.operation.version(entry.position, self._epoch)
            return [_complete(entry.message, entry.ref, self._epoch, entry.action, version)]
        return [summary_message(entry, self._epoch)] if isinstance(entry, Summarised) else []


def annotation_frame(channel: str, epoch: str, entry: Annotated) -> Frame:
    """An ANNOTATION frame (section 14.1)."""
    annotation = complete_annotation(entry, epoch)
    return Frame(
        Action.ANNOTATION,
        id=annotation.id,
        channel=channel,
        channel_serial=format_position(entry.position, epoch),
        connection_id=annotation.connection_id,
        timestamp=entry.position.ms,
        annotations=[annotation],
    )


def summary_message(entry: Summarised, epoch: str) -> Message:
    """The message that carries a new summary: no data, no id, serial and name of the annotated message."""
    return Message(
        name=entry.name,
        serial=entry.ref.serial(epoch),
        action=MessageAction.SUMMARY,
        timestamp=entry.ref.position.ms,
        version=Version(entry.ref.serial(epoch), entry.ref.position.ms),
        annotations={"summary": summary_to_wire(entry.tallies)},
    )


def complete_messages(entry: Created, epoch: str) -> list[Message]:
    """The messages of a publish as they are delivered."""
    return [
        _complete(
            message,
            ref := Ref(entry.position, index),
            epoch,
            MessageAction.CREATE,
            Version(ref.serial(epoch), entry.position.ms),
        )
        for index, message in enumerate(entry.messages)
    ]


def open_message(message: Message, ref: Ref, epoch: str) -> OpenMessage:
    """What appends to a stored message will repeat of it."""
    return OpenMessage(ref, message, epoch)


def encode_messages(variant: Variant, position: Position, epoch: str, messages: list[Message]) -> bytes:
    """One MESSAGE frame in its envelope; `position` is where a resume would continue."""
    frame = Frame(
        Action.MESSAGE,
        channel=variant.channel,
        channel_serial=format_position(position, epoch),
        messages=messages,
    )
    return encode_for(variant, frame)


def encode_for(variant: Variant, frame: Frame) -> bytes:
    """A protocol frame as the readers of a variant are written it."""
    if variant.envelope is None:
        return encode_websocket(frame, variant.fmt)
    return variant.envelope(encode_frame(frame, variant.fmt), frame.channel_serial or "")


def encode_websocket(frame: Frame, fmt: Format) -> bytes:
    """A protocol frame as a complete websocket frame."""
    payload = encode_frame(frame, fmt)
    return ws_frame_header(fmt is Format.JSON, len(payload)) + payload


def version_serial(position: Position, epoch: str) -> str:
    """The serial of the version that the entry at `position` made."""
    return format_item(position, epoch, 0)


def _complete(
    message: Message, ref: Ref, epoch: str, action: MessageAction, version: Version | None
) -> Message:
    # Not `replace`, which takes three times as long: every entry comes here.
    serial = ref.serial(epoch)
    return Message(
        id=message.id or serial,
        name=message.name,
        data=message.data,
        encoding=message.encoding,
        client_id=message.client_id,
        connection_id=message.connection_id,
        connection_key=message.connection_key,
        timestamp=ref.position.ms,
        extras=message.extras,
        serial=serial,
        action=action,
        version=version,
        annotations=message.annotations,
    )
