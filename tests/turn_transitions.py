"""The legal moves of a turn (TRN-4, TRN-5, TRN-7; protocol section 8), which the entries of a session are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from selfhost_transport.errors import InvalidArgument, TurnEnded
from selfhost_transport.turns.status import TurnStatus


class TurnEvent(StrEnum):
    """What moves a turn."""

    START = "start"
    SUSPEND = "suspend"
    RESUME = "resume"
    REQUEST_CANCEL = "request-cancel"
    COMPLETE = "complete"
    CANCEL = "cancel"
    FAIL = "fail"


_ENDINGS: Final = {TurnEvent.CANCEL: TurnStatus.CANCELLED, TurnEvent.FAIL: TurnStatus.FAILED}
_STOPPABLE: Final = {**_ENDINGS, TurnEvent.REQUEST_CANCEL: TurnStatus.CANCELLING}

# A hook's denial puts a turn back to ACTIVE and is not in it.
TRANSITIONS: Final[Mapping[TurnStatus, Mapping[TurnEvent, TurnStatus]]] = MappingProxyType(
    {
        TurnStatus.PENDING: {**_STOPPABLE, TurnEvent.START: TurnStatus.ACTIVE},
        TurnStatus.ACTIVE: {
            **_STOPPABLE,
            TurnEvent.SUSPEND: TurnStatus.SUSPENDED,
            TurnEvent.COMPLETE: TurnStatus.COMPLETED,
        },
        TurnStatus.SUSPENDED: {**_STOPPABLE, TurnEvent.RESUME: TurnStatus.ACTIVE},
        # A cancel that was accepted can no longer become a success (P2).
        TurnStatus.CANCELLING: _ENDINGS,
        TurnStatus.COMPLETED: {},
        TurnStatus.CANCELLED: {},
        TurnStatus.FAILED: {},
    }
)


def can(status: TurnStatus, event: TurnEvent) -> bool:
    """Whether `event` is legal in `status`."""
    return event in TRANSITIONS[status]


def advance(status: TurnStatus, event: TurnEvent) -> TurnStatus:
    """The status after `event`. Raises TurnEnded in a terminal state (TRN-7), else InvalidArgument."""
    following = TRANSITIONS[status].get(event)
    if following is not None:
        return following
    if status.is_terminal:
        raise TurnEnded(f"the turn has ended ({status}); send a new message to start another turn")
    raise InvalidArgument(f"a turn that is {status} cannot take the event {event}")
