"""Why a turn was not accepted, or may not be written any more: from a script's reply to an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selfhost_transport.errors import (
    Busy,
    CapabilityError,
    Conflict,
    LeaseLost,
    Overloaded,
    RateLimited,
    TransportError,
)
from selfhost_transport.store.turn_records import Lease, TurnRequest


def submit_refusal(request: TurnRequest, reply: Sequence[Any]) -> TransportError | None:
    """The error of a send that was refused; None for one that was accepted."""
    match reply[0]:
        case b"conflict":
            return Conflict(
                f"the id {request.input_id!r} was used for another message; send again with a fresh id"
            )
        case b"busy":
            active = [turn.decode() for turn in reply[2:]]
            more = {"open": reply[1]} if reply[1] > len(active) else {}
            return Busy(
                "the session has an active turn and its policy is `reject`; wait for it or cancel it",
                detail={"turns": active, **more},
            )
        case b"forbidden":
            return CapabilityError(
                "the credentials permit `turn-start` only, which ends the client's own suspended turns",
                detail={"turn": reply[1].decode()},
            )
        case b"queue full":
            return RateLimited(
                f"{reply[1]} turns are waiting in this session, which is its limit; try again later",
                detail={"reason": "queue_full", "queued": reply[1]},
            )
        case b"too many":
            return RateLimited(
                f"{reply[1]} turns are open in this session, which is its limit; end some, or try again later",
                detail={"reason": "too_many_open_turns", "open": reply[1]},
            )
        case b"overloaded":
            return Overloaded(
                f"{reply[1]} turns wait for a worker already, more than can start in time; nothing was "
                "stored, send again later",
                detail={"reason": "queue_too_long", "waiting": reply[1], "retryAfterMs": reply[2]},
            )
    return None


def lease_lost(lease: Lease, status: bytes) -> LeaseLost:
    """The error of a writer that may no longer write."""
    return LeaseLost(
        f"turn {lease.turn_id} may no longer be written by this worker: it is {status.decode()}",
        detail={"turn": lease.turn_id, "session": lease.session, "status": status.decode()},
    )
