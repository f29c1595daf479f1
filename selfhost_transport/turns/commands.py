"""What a client asks of a session's turns: one definition for the wire, the store, the SDK and the worker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Policy(StrEnum):
    """What a send does when the session is busy."""

    CONCURRENT = "concurrent"
    QUEUE = "queue"
    INTERRUPT = "interrupt"
    REJECT = "reject"
    # As `queue`, and texts of one owner that wait together become one turn.
    MERGE = "merge"


class Scope(StrEnum):
    """Which open turns of a session a cancel names."""

    TURN = "turn"
    INPUT = "input"
    OWNER = "owner"
    # What one device sent, where several share a client id (DEV-6).
    CONNECTION = "connection"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class CancelFilter:
    """A scope and its value: a turn id, an input's codec message id, an owner's client id, a
    connection's id, or nothing."""

    scope: Scope
    value: str = ""


ALL_TURNS: Final = CancelFilter(Scope.ALL)
