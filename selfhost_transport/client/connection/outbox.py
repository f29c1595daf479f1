"""Frames in flight to the service: numbered, kept until answered, sent again after a reconnect (section 4.5)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from selfhost_transport.errors import ErrorInfo, MessageTooLarge, RateLimited, TransportError
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.frame import AckResult, Frame
from selfhost_transport.wire.message import Message


@dataclass(slots=True, eq=False)
class Outgoing:
    """One publish. `msg_serial` is None until it was first put on a socket of the present connection.

    `size`: of its frame, in bytes.
    """

    messages: list[Message]
    size: int = 0
    msg_serial: int | None = None


@dataclass(frozen=True, slots=True)
class PublishOutcome:
    """The answer to a publish: a result, or the reason for its refusal."""

    outgoing: Outgoing
    result: AckResult | None = None
    error: ErrorInfo | None = None


_UNANSWERED = ErrorInfo(50000, 500, "the service acknowledged a later frame but not this one")


# Frames that may be unanswered on the wire. More would only wait in the service, in front of a cancel (CAN-19).
WINDOW = 256


class Outbox:
    """Publishes in the order they were made: those on the wire, numbered without gaps, then those that wait."""

    def __init__(self, channel: str, limit: int) -> None:
        self._channel = channel
        self._limit = limit
        self._sent: deque[Outgoing] = deque()
        self._unsent: deque[Outgoing] = deque()
        # Of the connection, not of the socket: a resumed connection counts on.
        self._next_serial = 0
        # Bytes; None until the service has said it.
        self._max_frame_size: int | None = None

    def __len__(self) -> int:
        return len(self._sent) + len(self._unsent)

    def add(self, messages: list[Message], size: int = 0) -> Outgoing:
        """Keep a publish until it is answered. Raises RateLimited when too many wait, MessageTooLarge for one alone."""
        if self._too_large(size):
            raise TransportError.from_info(self._refusal(size))
        if len(self) >= self._limit:
            raise RateLimited(
                f"{self._limit} sends are waiting for an acknowledgement, which is this client's limit",
                detail={"reason": "outbox_full"},
            )
        outgoing = Outgoing(messages, size)
        self._unsent.append(outgoing)
        return outgoing

    def limit_frames(self, max_frame_size: int) -> list[PublishOutcome]:
        """For a new connection: frames that are refused because the service closes a socket over them."""
        self._max_frame_size = max_frame_size
        outcomes = [
            PublishOutcome(outgoing, error=self._refusal(outgoing.size))
            for outgoing in self._unsent
            if self._too_large(outgoing.size)
        ]
        self._unsent = deque(outgoing for outgoing in self._unsent if not self._too_large(outgoing.size))
        return outcomes

    def release(self) -> list[Frame]:
        """The frames that may leave now, numbered."""
        frames: list[Frame] = []
        while self._unsent and len(self._sent) < WINDOW:
            outgoing = self._unsent.popleft()
            outgoing.msg_serial = self._next_serial
            self._next_serial += 1
            self._sent.append(outgoing)
            frames.append(self._frame(outgoing))
        return frames

    def repeat(self, *, resumed: bool) -> list[Frame]:
        """What a new socket begins with: unanswered frames, under their numbers if the connection was resumed."""
        if resumed:
            return [*map(self._frame, self._sent), *self.release()]
        self._next_serial = 0
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        return self.release()

    def withdraw(self, outgoing: Outgoing) -> bool:
        """Take back a publish that has not left on the present connection; False: it has."""
        if outgoing not in self._unsent:
            return False
        self._unsent.remove(outgoing)
        return True

    def resolve(self, frame: Frame) -> list[PublishOutcome]:
        """What an ACK or NACK answers; answers to frames that are not on the wire are ignored (section 6.3)."""
        first = frame.msg_serial or 0
        last = first + (frame.count or 1) - 1
        outcomes: list[PublishOutcome] = []
        while self._sent and (self._sent[0].msg_serial or 0) <= last:
            outgoing = self._sent.popleft()
            outcomes.append(_answer(outgoing, frame, (outgoing.msg_serial or 0) - first))
        return outcomes

    def clear(self, error: ErrorInfo) -> list[PublishOutcome]:
        """Give up on everything."""
        outcomes = [PublishOutcome(outgoing, error=error) for outgoing in (*self._sent, *self._unsent)]
        self._sent.clear()
        self._unsent.clear()
        return outcomes

    def _too_large(self, size: int) -> bool:
        return self._max_frame_size is not None and size > self._max_frame_size

    def _refusal(self, size: int) -> ErrorInfo:
        said = f"the frame has {size} bytes, the limit is {self._max_frame_size}; send less at once"
        return MessageTooLarge(said).info

    def _frame(self, outgoing: Outgoing) -> Frame:
        return Frame(
            Action.MESSAGE,
            channel=self._channel,
            msg_serial=outgoing.msg_serial,
            messages=outgoing.messages,
        )


def _answer(outgoing: Outgoing, frame: Frame, index: int) -> PublishOutcome:
    if index < 0:
        return PublishOutcome(outgoing, error=_UNANSWERED)
    if frame.error is not None:
        return PublishOutcome(outgoing, error=frame.error)
    results = frame.res or []
    return PublishOutcome(outgoing, result=results[index] if index < len(results) else AckResult([]))
