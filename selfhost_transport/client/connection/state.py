"""The states of a connection and of its channel, and the changes an application may watch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from selfhost_transport.errors import ErrorInfo


class ConnectionState(StrEnum):
    """Where a connection stands. Only `closed` and `failed` are final; all others recover by themselves."""

    INITIALIZED = "initialized"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"  # lost; it will be resumed
    SUSPENDED = "suspended"  # lost for so long that only the log has the missed entries
    CLOSED = "closed"
    FAILED = "failed"  # refused for good; `reason` says why

    @property
    def is_final(self) -> bool:
        """Whether the connection has stopped trying."""
        return self in (ConnectionState.CLOSED, ConnectionState.FAILED)


class ChannelState(StrEnum):
    """Where the attachment to the session stands."""

    DETACHED = "detached"
    ATTACHING = "attaching"
    ATTACHED = "attached"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class StateChange:
    """The connection went from `previous` to `current`; `retry_in` seconds until the next attempt."""

    previous: ConnectionState
    current: ConnectionState
    reason: ErrorInfo | None = None
    retry_in: float | None = None
