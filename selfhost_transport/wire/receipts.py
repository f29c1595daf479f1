"""What the gateway adds to an ACK: which turn a send became, and what a cancel matched.

Extra members of `res[i]`; SDKs that do not know them ignore them (protocol section 6.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfhost_transport.errors import BadRequest
from selfhost_transport.wire import fields


@dataclass(frozen=True, slots=True)
class TurnReceipt:
    """The turn that a send started. `status`: pending, queued or cancelled; `repeated`: the send was known (P5).

    `interrupted` holds the ids of the turns that the same step cancelled. `waiting`: turns that wait before this one.
    """

    id: str
    status: str
    repeated: bool = False
    interrupted: tuple[str, ...] = ()
    waiting: int = 0

    def to_wire(self) -> dict[str, Any]:
        """The map that travels as `res[i].turn`."""
        wire: dict[str, Any] = {
            "id": self.id,
            "status": self.status,
            "repeated": self.repeated,
            "interrupted": list(self.interrupted),
        }
        return {**wire, "waiting": self.waiting} if self.waiting else wire


@dataclass(frozen=True, slots=True)
class CancelReceipt:
    """What a cancel did. No content of a matched turn has a position after `position`, a channelSerial (P2).

    `denied`: turns that continue because their agent refused. `hook_failed`: those of the matched whose agent's hook could
    not decide, which counted as consent (CAN-9). `undecided`: turns whose agents had not decided when this was sent; they are
    in none of the others, and the session gets the decision.
    """

    position: str
    matched: tuple[str, ...] = ()
    already_ended: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    hook_failed: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        """The map that travels as `res[i].cancel`."""
        wire = {
            "position": self.position,
            "matched": list(self.matched),
            "alreadyEnded": list(self.already_ended),
        }
        rare = {
            "denied": list(self.denied),
            "hookFailed": list(self.hook_failed),
            "undecided": list(self.undecided),
        }
        return {**wire, **{name: turns for name, turns in rare.items() if turns}}


def decode_turn(wire: Mapping[str, Any]) -> TurnReceipt:
    """Read `res[i].turn`. Raises BadRequest for a field of the wrong type."""
    return TurnReceipt(
        id=fields.text(wire, "id") or "",
        status=fields.text(wire, "status") or "",
        repeated=wire.get("repeated") is True,
        interrupted=_texts(wire, "interrupted"),
        waiting=fields.integer(wire, "waiting") or 0,
    )


def decode_cancel(wire: Mapping[str, Any]) -> CancelReceipt:
    """Read `res[i].cancel`. Raises BadRequest for a field of the wrong type."""
    return CancelReceipt(
        position=fields.text(wire, "position") or "",
        matched=_texts(wire, "matched"),
        already_ended=_texts(wire, "alreadyEnded"),
        denied=_texts(wire, "denied"),
        hook_failed=_texts(wire, "hookFailed"),
        undecided=_texts(wire, "undecided"),
    )


def _texts(wire: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = fields.items(wire, name) or []
    if not all(isinstance(value, str) for value in values):
        raise BadRequest(f"{name} must be a list of strings")
    return tuple(values)
