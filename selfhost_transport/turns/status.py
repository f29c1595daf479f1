"""Where a turn stands (TRN-4, TRN-6). Which status follows which is decided by the scripts of the store."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final

from selfhost_transport.turns.lifecycle import RunReason


class TurnStatus(StrEnum):
    """Where a turn stands. The last three are terminal."""

    PENDING = "pending"  # accepted; no agent has begun (queued turns too)
    ACTIVE = "active"
    SUSPENDED = "suspended"  # waits for a tool result or an approval
    CANCELLING = "cancelling"  # a hook is asked, or a closing note may follow
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether the turn has ended."""
        return self in TERMINAL


TERMINAL: Final = frozenset({TurnStatus.COMPLETED, TurnStatus.CANCELLED, TurnStatus.FAILED})

STATUS_OF_REASON: Final = MappingProxyType(
    {
        RunReason.COMPLETE: TurnStatus.COMPLETED,
        RunReason.CANCELLED: TurnStatus.CANCELLED,
        RunReason.ERROR: TurnStatus.FAILED,
    }
)
