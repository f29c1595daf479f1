"""The maps inside a frame that describe the connection: connectionDetails and error (sections 3.2, 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire import fields

_MAX_CAUSES = 8
"""Causes behind an error that are kept; deeper ones are dropped."""


@dataclass(slots=True)
class ConnectionDetails:
    """The contents of CONNECTED (protocol section 4.1). Sizes in bytes, rates per second, times in ms.

    `client_id`: `*` may assume any identity, absent is anonymous. `max_idle_interval` 0 = no idle check.
    """

    client_id: str | None = None
    connection_key: str | None = None
    max_message_size: int | None = None
    max_frame_size: int | None = None
    max_inbound_rate: int | None = None
    max_outbound_rate: int | None = None
    connection_state_ttl: int | None = None
    max_idle_interval: int | None = None
    server_id: str | None = None
    site_code: str | None = None
    objects_gc_grace_period: int | None = None
    # This service's own: the effective rights, as in TokenDetails; the SDKs ignore it (AUT-4).
    capability: str | None = None


_TEXTS = (
    ("clientId", "client_id"), ("capability", "capability"), ("connectionKey", "connection_key"), ("serverId", "server_id"),
    ("siteCode", "site_code"),
)  # fmt: skip
_NUMBERS = (
    ("maxMessageSize", "max_message_size"), ("maxFrameSize", "max_frame_size"),
    ("maxInboundRate", "max_inbound_rate"), ("maxOutboundRate", "max_outbound_rate"),
    ("connectionStateTtl", "connection_state_ttl"), ("maxIdleInterval", "max_idle_interval"),
    ("objectsGCGracePeriod", "objects_gc_grace_period"),
)  # fmt: skip


def decode_details(wire: Mapping[str, Any]) -> ConnectionDetails:
    """Read `connectionDetails`. Raises BadRequest for a field of the wrong type."""
    details = ConnectionDetails()
    for name, attribute in _TEXTS:
        setattr(details, attribute, fields.text(wire, name))
    for name, attribute in _NUMBERS:
        setattr(details, attribute, fields.integer(wire, name))
    return details


def encode_details(details: ConnectionDetails) -> dict[str, Any]:
    """The wire map of the details; absent fields omitted."""
    found = ((name, getattr(details, attribute)) for name, attribute in (*_TEXTS, *_NUMBERS))
    return {name: value for name, value in found if value is not None}


def decode_error(wire: Mapping[str, Any], causes: int = _MAX_CAUSES) -> ErrorInfo:
    """Read an `error` map; a missing code or status is taken as 50000 and 500. Raises BadRequest."""
    cause = fields.submap(wire, "cause") if causes else None
    return ErrorInfo(
        code=fields.integer(wire, "code") or 50000,
        status_code=fields.integer(wire, "statusCode") or 500,
        message=fields.text(wire, "message") or "",
        href=fields.text(wire, "href"),
        detail=fields.mapping(wire, "detail"),
        cause=None if cause is None else decode_error(cause, causes - 1),
    )
