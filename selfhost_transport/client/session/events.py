"""Events for an application besides those of the tree."""

from __future__ import annotations

from dataclasses import dataclass

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.message import Message


@dataclass(frozen=True, slots=True)
class Discontinuity:
    """Entries may have been missed; the session was read again.

    Emitted once the conversation is right again. `reason`: the service's, if it gave one.
    """

    reason: ErrorInfo | None
    # Where delivery went on, a channelSerial.
    position: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One message as delivered, with the position of its version's serial."""

    position: str
    message: Message


@dataclass(frozen=True, slots=True)
class Waiting:
    """A long wait: its object, and the reason for it."""

    what: str
    reason: str
    seconds: float
    turn_id: str | None = None
