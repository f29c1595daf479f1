"""What became of a message that was sent into a running turn (STE-2; ai-transport section 8.8)."""

from __future__ import annotations

from dataclasses import dataclass

from selfhost_transport.client.shared_future import SharedFuture
from selfhost_transport.turns.nodes import Node
from selfhost_transport.turns.runs import RunInfo
from selfhost_transport.turns.status import TurnStatus


@dataclass(frozen=True, slots=True)
class SteerOutcome:
    """Whether some output of the turn answers the message, and how the turn stood when that was known."""

    consumed: bool
    status: TurnStatus


class Steer:
    """A steer that the service has. `serial`: its position in the session; await `outcome`."""

    def __init__(self, codec_message_id: str, serial: str | None) -> None:
        self.codec_message_id = codec_message_id
        self.serial = serial
        # Set when the turn ends or, if it was answered by then, is suspended.
        self.outcome: SharedFuture[SteerOutcome] = SharedFuture(self)

    def update(self, info: RunInfo, node: Node | None) -> None:
        """The turn's read model changed."""
        if not info.status.is_terminal and info.status is not TurnStatus.SUSPENDED:
            return
        consumed = node is not None and self.codec_message_id in node.answered_steers()
        if consumed or info.status.is_terminal:
            self.outcome.set(SteerOutcome(consumed, info.status))
