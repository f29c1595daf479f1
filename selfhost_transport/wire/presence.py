"""Presence messages (protocol section 8.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.wire import fields
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.payload import decode_payload, encode_payload

_ACTIONS = {action.value: action for action in PresenceAction}


@dataclass(slots=True)
class PresenceMessage:
    """A member, or a change of one, in storage form. A member is a (connection_id, client_id) pair."""

    action: PresenceAction | None = None
    id: str | None = None
    client_id: str | None = None
    connection_id: str | None = None
    data: str | bytes | None = None
    encoding: str | None = None
    timestamp: int | None = None
    extras: dict[str, Any] | None = None


def decode_presence(obj: Mapping[str, Any], fmt: Format) -> PresenceMessage:
    """Read a presence message from its wire map. Raises BadRequest as decode_message does."""
    data, encoding = decode_payload(obj)
    number = fields.integer(obj, "action")
    if number is not None and number not in _ACTIONS:
        raise InvalidArgument(f"unknown presence action {number}")
    return PresenceMessage(
        action=None if number is None else _ACTIONS[number],
        id=fields.text(obj, "id"),
        client_id=fields.text(obj, "clientId"),
        connection_id=fields.text(obj, "connectionId"),
        data=data,
        encoding=encoding,
        timestamp=fields.integer(obj, "timestamp"),
        extras=fields.mapping(obj, "extras", code=40032),
    )


def encode_presence(presence: PresenceMessage, fmt: Format) -> dict[str, Any]:
    """The wire map of a presence message for one format; absent fields omitted."""
    wire: dict[str, Any] = {}
    if presence.id is not None:
        wire["id"] = presence.id
    if presence.action is not None:
        wire["action"] = int(presence.action)
    if presence.client_id is not None:
        wire["clientId"] = presence.client_id
    if presence.connection_id is not None:
        wire["connectionId"] = presence.connection_id
    encode_payload(presence.data, presence.encoding, fmt, wire)
    if presence.timestamp is not None:
        wire["timestamp"] = presence.timestamp
    if presence.extras is not None:
        wire["extras"] = presence.extras
    return wire
