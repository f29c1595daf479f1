"""From a history elsewhere to publishes here: what was one publish stays one, at its time, in its order.

A serial of the source names a position and an index in it; here they are the same ones, in the session's epoch. What
refers to a serial, an attempt's outputs to its step-start, is made to refer to the new one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from selfhost_transport.errors import ServiceError
from selfhost_transport.store.entries import MessageOperation
from selfhost_transport.store.session_import import ImportedMessage
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import MAX_INDEX, Position, format_item

_SERIAL: Final = re.compile(r"([0-9]+)-([0-9]+)@([^:]*)(?::([0-9]+))?")
_HIGHEST_COUNTER: Final = 989
"""The store moves on to the next millisecond from here on."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One publish: `messages` as they are stored at `position`; `serial`: the last of them at the source."""

    position: Position
    messages: tuple[ImportedMessage, ...]
    serial: str


class Placer:
    """Takes the messages of a channel in their order, and gives its publishes, each once it is whole.

    `after`: the position that the first must come later than. Raises ServiceError for messages without serials.
    """

    def __init__(self, epoch: str, after: Position = Position.ZERO) -> None:
        self._epoch = epoch
        self._last = after
        self._group: list[Message] = []
        self._group_name = ""
        # Serials of step-starts at the source -> here.
        self._steps: dict[str, str] = {}

    def take(self, message: Message) -> Iterator[Placed]:
        """The next message; gives the publish before it when it begins another one."""
        name = _publish_name(message)
        if self._group and (name != self._group_name or len(self._group) > MAX_INDEX):
            yield self._place()
        self._group_name = name
        self._group.append(message)

    def finish(self) -> Iterator[Placed]:
        """The last publish."""
        if self._group:
            yield self._place()

    def _place(self) -> Placed:
        group, self._group = self._group, []
        position = self._last = self._position_of(group[0])
        messages = [self._past(message, position) for message in group]
        for index, message in enumerate(group):
            if message.name == h.AI_STEP_START and message.serial is not None:
                self._steps[message.serial] = format_item(position, self._epoch, index)
        return Placed(position, tuple(messages), group[-1].serial or "")

    def _position_of(self, message: Message) -> Position:
        position = _position(message.serial or "")
        if position.counter > _HIGHEST_COUNTER:
            position = Position(position.ms + 1, 0)
        return position if position > self._last else following(self._last)

    def _past(self, message: Message, position: Position) -> ImportedMessage:
        stored = Message(
            id=message.id,
            name=message.name,
            data=message.data,
            encoding=message.encoding,
            client_id=message.client_id,
            connection_id=message.connection_id,
            extras=self._extras(message),
        )
        version = message.version
        if not _is_changed(message) or version is None:
            return ImportedMessage(stored)
        operation = MessageOperation(version.client_id, version.description, version.metadata)
        changed = max(position, _position(version.serial)) if version.serial else position
        return ImportedMessage(stored, changed, operation, deleted=message.action is MessageAction.DELETE)

    def _extras(self, message: Message) -> dict[str, Any] | None:
        headers = h.read_headers(message)
        step = headers.get(h.STEP_START_SERIAL) if headers is not None else None
        if step is None or message.extras is None:
            return message.extras
        ai = message.extras["ai"]
        transport = {**ai["transport"], h.STEP_START_SERIAL: self._steps.get(step) or self._here(step)}
        return {**message.extras, "ai": {**ai, "transport": transport}}

    def _here(self, serial: str) -> str:
        """What a serial that was placed by an earlier run became; nothing moved it but a very full millisecond."""
        match = _SERIAL.fullmatch(serial)
        if match is None:
            return serial
        return format_item(_position(serial), self._epoch, min(int(match[4] or 0), MAX_INDEX))


def following(position: Position) -> Position:
    """The next position that the store may be given."""
    if position.counter >= _HIGHEST_COUNTER:
        return Position(position.ms + 1, 0)
    return Position(position.ms, position.counter + 1)


def _is_changed(message: Message) -> bool:
    """Whether a message is no longer as it was created: readers take a text that has grown for what it is then alone."""
    if message.action in (MessageAction.UPDATE, MessageAction.APPEND, MessageAction.DELETE):
        return True
    return message.version is not None and message.version.serial not in ("", message.serial)


def _position(serial: str) -> Position:
    match = _SERIAL.fullmatch(serial)
    if match is None:
        raise ServiceError(
            f"a message of the source has {'the serial ' + repr(serial[:64]) if serial else 'no serial'}: its order is unknown"
        )
    return Position(int(match[1]), int(match[2]))


def _publish_name(message: Message) -> str:
    """The part of the serial that all messages of a publish have in common."""
    return (message.serial or "").rpartition(":")[0] or (message.serial or "")
