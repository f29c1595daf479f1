"""Message annotations (protocol section 14.1): typed, so that a frame that holds some can be answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfhost_transport.errors import InvalidArgument
from selfhost_transport.wire import fields
from selfhost_transport.wire.actions import AnnotationAction
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.payload import decode_payload, encode_payload

_ACTIONS = {action.value: action for action in AnnotationAction}
_TEXT_FIELDS = (
    ("id", "id"), ("messageSerial", "message_serial"), ("type", "type"), ("name", "name"),
    ("serial", "serial"), ("clientId", "client_id"), ("connectionId", "connection_id"),
)  # fmt: skip


@dataclass(slots=True)
class Annotation:
    """A remark on the message `message_serial`, in storage form; `type` is `<namespace>:<method>`."""

    id: str | None = None
    message_serial: str | None = None
    type: str | None = None
    action: AnnotationAction | None = None
    name: str | None = None
    count: int | None = None
    data: str | bytes | None = None
    encoding: str | None = None
    extras: dict[str, Any] | None = None
    serial: str | None = None
    client_id: str | None = None
    connection_id: str | None = None
    timestamp: int | None = None


def decode_annotation(obj: Mapping[str, Any], fmt: Format) -> Annotation:
    """Read an annotation from its wire map. Raises BadRequest as decode_message does."""
    data, encoding = decode_payload(obj)
    number = fields.integer(obj, "action")
    if number is not None and number not in _ACTIONS:
        raise InvalidArgument(f"unknown annotation action {number}")
    return Annotation(
        id=fields.text(obj, "id"),
        message_serial=fields.text(obj, "messageSerial"),
        type=fields.text(obj, "type"),
        action=None if number is None else _ACTIONS[number],
        name=fields.text(obj, "name"),
        count=fields.integer(obj, "count"),
        data=data,
        encoding=encoding,
        extras=fields.mapping(obj, "extras", code=40032),
        serial=fields.text(obj, "serial"),
        client_id=fields.text(obj, "clientId"),
        connection_id=fields.text(obj, "connectionId"),
        timestamp=fields.integer(obj, "timestamp"),
    )


def encode_annotation(annotation: Annotation, fmt: Format) -> dict[str, Any]:
    """The wire map of an annotation for one format; absent fields omitted."""
    wire: dict[str, Any] = {}
    for name, attribute in _TEXT_FIELDS:
        value = getattr(annotation, attribute)
        if value is not None:
            wire[name] = value
    if annotation.action is not None:
        wire["action"] = int(annotation.action)
    encode_payload(annotation.data, annotation.encoding, fmt, wire)
    for name in ("count", "extras", "timestamp"):
        value = getattr(annotation, name)
        if value is not None:
            wire[name] = value
    return wire
