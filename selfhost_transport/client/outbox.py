"""Frames on their way to the service: numbered, kept until answered, sent again after a reconnect (section 4.5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from selfhost_transport.errors import ErrorInfo, RateLimited
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.frame import AckResult, Frame
from selfhost_transport.wire.message import Message


@dataclass(slots=True, eq=False)
class Outgoing:
    """One publish. `msg_serial` is None until it was first put on a socket of the present connection."""

    messages: list[Message]
    msg_serial: int | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The answer to a publish: a result, or the reason for its refusal."""

    outgoing: Outgoing
    result: AckResult | None = None
    error: ErrorInfo | None = None


_UNANSWERED = ErrorInfo(50000, 500, "the service acknowledged a later frame and not this one")


class Outbox:
    """Publishes in the order they were made; the unanswered ones are a prefix of consecutive msgSerials."""

    def __init__(self, channel: str, limit: int) -> None:
        self._channel = channel
        self._limit = limit
        self._waiting: deque[Outgoing] = deque()
        # Of the connection, not of the socket: a resumed connection counts on.
        self._next_serial = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, messages: list[Message]) -> Outgoing:
        """Keep a publish until it is answered. Raises RateLimited when too many wait."""
        if len(self._waiting) >= self._limit:
            raise RateLimited(
                f"{self._limit} sends are waiting for the service, which is the limit of this client",
                detail={"reason": "outbox_full"},
            )
        outgoing = Outgoing(messages)
        self._waiting.append(outgoing)
        return outgoing

    def frame(self, outgoing: Outgoing) -> Frame:
        """The frame of a publish, numbered on first use."""
        if outgoing.msg_serial is None:
            outgoing.msg_serial = self._next_serial
            self._next_serial += 1
        return Frame(
            Action.MESSAGE,
            channel=self._channel,
            msg_serial=outgoing.msg_serial,
            messages=outgoing.messages,
        )

    def frames(self, *, resumed: bool) -> Iterator[Frame]:
        """Everything unanswered, for a new socket: same numbers if the connection was resumed, else from 0."""
        if not resumed:
            self._next_serial = 0
            for outgoing in self._waiting:
                outgoing.msg_serial = None
        return (self.frame(outgoing) for outgoing in list(self._waiting))

    def settle(self, frame: Frame) -> list[Settled]:
        """What an ACK or NACK answers; answers to frames that are not waiting are ignored (section 6.3)."""
        first = frame.msg_serial or 0
        last = first + (frame.count or 1) - 1
        settled: list[Settled] = []
        while self._waiting:
            serial = self._waiting[0].msg_serial
            if serial is None or serial > last:
                break
            settled.append(self._answer(self._waiting.popleft(), frame, serial - first))
        return settled

    def clear(self, error: ErrorInfo) -> list[Settled]:
        """Give up on everything that waits."""
        settled = [Settled(outgoing, error=error) for outgoing in self._waiting]
        self._waiting.clear()
        return settled

    def _answer(self, outgoing: Outgoing, frame: Frame, index: int) -> Settled:
        if index < 0:
            return Settled(outgoing, error=_UNANSWERED)
        if frame.error is not None:
            return Settled(outgoing, error=frame.error)
        results = frame.res or []
        return Settled(outgoing, result=results[index] if index < len(results) else AckResult([]))
