"""What the connection's core asks its driver to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from selfhost_transport.client.connection.outbox import PublishOutcome
from selfhost_transport.client.connection.state import StateChange
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.frame import Frame


@dataclass(frozen=True, slots=True)
class Send:
    """Put a frame on the socket."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the socket; the loss is then reported to the core like any other."""

    reason: ErrorInfo


@dataclass(frozen=True, slots=True)
class StateChanged:
    """Tell the application about a change of the connection."""

    change: StateChange


@dataclass(frozen=True, slots=True)
class Attached:
    """The session is attached. `serial`: where delivery starts.

    `continuous`: nothing was missed since the position reached before; never true the first time.
    """

    serial: str
    first: bool
    continuous: bool
    params: dict[str, str]
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """A MESSAGE frame of the session."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Answered:
    """A publish has its answer."""

    outcome: PublishOutcome


@dataclass(frozen=True, slots=True)
class AttachRefused:
    """The session cannot be attached; the connection continues."""

    error: ErrorInfo


@dataclass(frozen=True, slots=True)
class NeedToken:
    """Fetch a token and give it to `ConnectionCore.reauthorise` (protocol section 4.7)."""


Effect: TypeAlias = Send | Drop | StateChanged | Attached | Received | Answered | AttachRefused | NeedToken
