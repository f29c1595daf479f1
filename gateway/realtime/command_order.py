"""The order of one connection's frames: when each takes effect, and when its reply leaves. No I/O.

A frame waits behind earlier ones of its channel: a command until an attach has ended, an attach or a detach until the
commands before it were answered. Frames of other channels go past it. Replies leave in the order of the frames,
refusals included (section 6.2).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import takewhile

from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.actions import Action
from selfhost_transport.wire.frame import AckResult, Frame


@dataclass(slots=True)
class _Pending:
    """A frame whose reply has not left yet. `channel`: it is a command that is being carried out there."""

    msg_serial: int
    channel: str | None = None
    outcome: AckResult | ErrorInfo | None = None


class _Lane:
    """One channel: the frames that wait, and how many commands are being carried out."""

    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[tuple[Frame, int]] = deque()


class CommandOrder:
    """All frames of a connection that wait, are being carried out, or are owed a reply.

    A ticket names one that is owed a reply; 0 stands for frames that are not. Channels go by the name that the client
    writes.
    """

    __slots__ = ("_lanes", "_last", "_pending", "waiting")

    def __init__(self) -> None:
        # Frames that wait, in all.
        self.waiting = 0
        self._last = 0
        # By ticket, which is their order. Both are there while something is in them: a connection that only listens
        # needs none.
        self._pending: dict[int, _Pending] | None = None
        self._lanes: dict[str, _Lane] | None = None

    def __len__(self) -> int:
        """Replies that are owed."""
        return len(self._pending or ())

    # Replies

    def register(self, msg_serial: int) -> int:
        """A frame is owed a reply. Returns its ticket."""
        self._last += 1
        if self._pending is None:
            self._pending = {}
        self._pending[self._last] = _Pending(msg_serial)
        return self._last

    def has_pending(self, ticket: int) -> bool:
        """Whether a reply has not left yet."""
        return self._pending is not None and ticket in self._pending

    def resolve(self, ticket: int, outcome: AckResult | ErrorInfo) -> tuple[list[Frame], str | None]:
        """Note an outcome.

        Returns the replies that may leave now, in order; and the channel whose frames waited for this one.
        """
        pending = self._pending
        if pending is None or (resolved := pending.get(ticket)) is None:
            return [], None
        resolved.outcome = outcome
        freed = self._end(resolved)
        ready = list(takewhile(lambda other: pending[other].outcome is not None, pending))
        frames = [_reply(pending.pop(other)) for other in ready]
        self._pending = pending or None
        return frames, freed

    # Channels

    def begin(self, ticket: int, channel: str) -> None:
        """A command is being carried out."""
        if self._pending is not None and ticket in self._pending:
            self._pending[ticket].channel = channel
            self._lane(channel).running += 1

    def is_busy(self, channel: str) -> bool:
        """Whether commands on a channel are being carried out."""
        return self._lanes is not None and channel in self._lanes and self._lanes[channel].running > 0

    def holds(self, channel: str) -> bool:
        """Whether frames of a channel wait."""
        return self._lanes is not None and channel in self._lanes and bool(self._lanes[channel].waiting)

    def postpone(self, channel: str, frame: Frame, ticket: int) -> None:
        """Have a frame wait behind those of its channel."""
        self._lane(channel).waiting.append((frame, ticket))
        self.waiting += 1

    def peek(self, channel: str) -> Frame | None:
        """The frame of a channel that is next."""
        return self._lanes[channel].waiting[0][0] if self._lanes and self.holds(channel) else None

    def pop(self, channel: str) -> tuple[Frame, int]:
        """Take the frame that is next, and its ticket. Raises LookupError where none waits."""
        if self._lanes is None:
            raise KeyError(channel)
        found = self._lanes[channel].waiting.popleft()
        self.waiting -= 1
        self._drop_if_empty(channel)
        return found

    def clear(self) -> list[tuple[Frame, int]]:
        """Take all frames that wait, those of one channel in order."""
        frames: list[tuple[Frame, int]] = []
        for channel, lane in list((self._lanes or {}).items()):
            frames += lane.waiting
            lane.waiting.clear()
            self._drop_if_empty(channel)
        self.waiting = 0
        return frames

    def _lane(self, channel: str) -> _Lane:
        if self._lanes is None:
            self._lanes = {}
        lane = self._lanes.get(channel)
        if lane is None:
            lane = self._lanes[channel] = _Lane()
        return lane

    def _end(self, resolved: _Pending) -> str | None:
        """A command was carried out or refused. Returns its channel where frames wait for that."""
        channel, resolved.channel = resolved.channel, None
        lane = self._lanes.get(channel) if self._lanes and channel is not None else None
        if lane is None or channel is None:
            return None
        lane.running -= 1
        if lane.running:
            return None
        self._drop_if_empty(channel)
        return channel if lane.waiting else None

    def _drop_if_empty(self, channel: str) -> None:
        if self._lanes is not None and not (self._lanes[channel].running or self._lanes[channel].waiting):
            del self._lanes[channel]
            self._lanes = self._lanes or None


def _reply(pending: _Pending) -> Frame:
    if isinstance(pending.outcome, AckResult):
        # A presence frame has no serials to report.
        res = [pending.outcome] if pending.outcome.serials else None
        return Frame(Action.ACK, msg_serial=pending.msg_serial, count=1, res=res)
    return Frame(Action.NACK, msg_serial=pending.msg_serial, count=1, error=pending.outcome)
