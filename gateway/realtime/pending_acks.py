"""The answers that one connection is owed: they leave in the order of its frames, refusals included (section 6.2)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.frame import AckResult, Frame


@dataclass(slots=True)
class _Answer:
    msg_serial: int
    outcome: AckResult | ErrorInfo | None = None


class PendingAcks:
    """Frames whose ACK or NACK has not left yet, oldest first. A ticket names one of them."""

    __slots__ = ("_last", "_waiting")

    def __init__(self) -> None:
        # By ticket, which is their order. There while something is: a connection that only listens needs none.
        self._waiting: dict[int, _Answer] | None = None
        self._last = 0

    def __len__(self) -> int:
        return len(self._waiting or ())

    def register(self, msg_serial: int) -> int:
        """A frame's answer will come. Returns its ticket."""
        self._last += 1
        if self._waiting is None:
            self._waiting = {}
        self._waiting[self._last] = _Answer(msg_serial)
        return self._last

    def has_pending(self, ticket: int) -> bool:
        """Whether an answer has not left yet."""
        return self._waiting is not None and ticket in self._waiting

    def settle(self, ticket: int, outcome: AckResult | ErrorInfo) -> list[Frame]:
        """Note an outcome. Returns the answers that may leave now, in order."""
        waiting = self._waiting
        if waiting is None or ticket not in waiting:
            return []
        waiting[ticket].outcome = outcome
        ready = list(takewhile(lambda other: waiting[other].outcome is not None, waiting))
        frames = [_frame(waiting.pop(other)) for other in ready]
        self._waiting = waiting or None
        return frames


def _frame(answer: _Answer) -> Frame:
    if isinstance(answer.outcome, AckResult):
        # A presence frame has no serials to tell.
        res = [answer.outcome] if answer.outcome.serials else None
        return Frame(Action.ACK, msg_serial=answer.msg_serial, count=1, res=res)
    return Frame(Action.NACK, msg_serial=answer.msg_serial, count=1, error=answer.outcome)
