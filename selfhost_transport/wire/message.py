"""Messages in storage form, and their wire maps (protocol sections 6.1 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.wire import fields
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.payload import decode_payload, encode_payload

__all__ = ["Format", "Message", "Version", "decode_message", "encode_message"]

_ACTIONS = {action.value: action for action in MessageAction}
_TEXT_FIELDS = (
    ("id", "id"), ("name", "name"), ("clientId", "client_id"), ("connectionId", "connection_id"),
    ("connectionKey", "connection_key"), ("serial", "serial"),
)  # fmt: skip


@dataclass(slots=True)
class Version:
    """One version of a message (protocol section 7.3). `serial` is empty until the service gives one."""

    serial: str
    timestamp: int | None = None
    client_id: str | None = None
    description: str | None = None
    metadata: dict[str, str] | None = None


@dataclass(slots=True)
class Message:
    """A message in storage form: binary data is raw bytes, `encoding` has no trailing `base64` step.

    `timestamp` is the time of the create in ms; `extras` is opaque and kept verbatim.
    """

    id: str | None = None
    name: str | None = None
    data: str | bytes | None = None
    encoding: str | None = None
    client_id: str | None = None
    connection_id: str | None = None
    connection_key: str | None = None
    timestamp: int | None = None
    extras: dict[str, Any] | None = None
    serial: str | None = None
    action: MessageAction | None = None
    version: Version | None = None
    annotations: dict[str, Any] | None = None


def decode_message(obj: Mapping[str, Any], fmt: Format) -> Message:
    """Read a message from its wire map; null is absent, unknown fields are ignored.

    Either form of a binary payload is understood in either format, so `fmt` does not change the result.
    Raises BadRequest: 40013 for data and encoding, 40032 for extras, 40003 for an unknown action, else 40000.
    """
    data, encoding = decode_payload(obj)
    return Message(
        id=fields.text(obj, "id"),
        name=fields.text(obj, "name"),
        data=data,
        encoding=encoding,
        client_id=fields.text(obj, "clientId"),
        connection_id=fields.text(obj, "connectionId"),
        connection_key=fields.text(obj, "connectionKey"),
        timestamp=fields.integer(obj, "timestamp"),
        extras=fields.mapping(obj, "extras", code=40032),
        serial=fields.text(obj, "serial"),
        action=_decode_action(obj),
        version=_decode_version(obj),
        annotations=fields.mapping(obj, "annotations"),
    )


def encode_message(message: Message, fmt: Format) -> dict[str, Any]:
    """The wire map of a message for one format: absent fields omitted, zero and empty ones kept."""
    wire: dict[str, Any] = {}
    for name, attribute in _TEXT_FIELDS:
        value = getattr(message, attribute)
        if value is not None:
            wire[name] = value
    encode_payload(message.data, message.encoding, fmt, wire)
    if message.timestamp is not None:
        wire["timestamp"] = message.timestamp
    if message.extras is not None:
        wire["extras"] = message.extras
    if message.action is not None:
        wire["action"] = int(message.action)
    if message.version is not None:
        wire["version"] = encode_version(message.version)
    if message.annotations is not None:
        wire["annotations"] = message.annotations
    return wire


def encode_version(version: Version) -> dict[str, Any]:
    """The wire map of a version; the serial is left out while there is none."""
    wire: dict[str, Any] = {}
    if version.serial:
        wire["serial"] = version.serial
    if version.timestamp is not None:
        wire["timestamp"] = version.timestamp
    if version.client_id is not None:
        wire["clientId"] = version.client_id
    if version.description is not None:
        wire["description"] = version.description
    if version.metadata is not None:
        wire["metadata"] = version.metadata
    return wire


def _decode_action(obj: Mapping[str, Any]) -> MessageAction | None:
    number = fields.integer(obj, "action")
    if number is None:
        return None
    action = _ACTIONS.get(number)
    if action is None:
        # A publish that this service does not understand must not be stored as a create.
        raise InvalidArgument(f"unknown message action {number}")
    return action


def _decode_version(obj: Mapping[str, Any]) -> Version | None:
    wire = fields.submap(obj, "version")
    if wire is None:
        return None
    return Version(
        serial=fields.text(wire, "serial") or "",
        timestamp=fields.integer(wire, "timestamp"),
        client_id=fields.text(wire, "clientId"),
        description=fields.text(wire, "description"),
        metadata=fields.text_map(wire, "metadata"),
    )
