"""The order of one connection's operations on each of its channels. No I/O.

A frame waits behind earlier ones of its channel: an operation until an attach has ended, an attach or a detach until
the operations before it have been answered. Frames of other channels go past it; only their answers wait.
"""

from __future__ import annotations

from collections import deque

from selfhost_transport.wire.frame import Frame


class ChannelOrder:
    """Frames that wait, and operations that are in flight, by the channel's name as the client writes it."""

    __slots__ = ("_counts", "_running", "_waiting", "waiting")

    def __init__(self) -> None:
        # Frames that wait, in all.
        self.waiting = 0
        # Each is there while something is in it: a connection that only listens needs none.
        self._waiting: dict[str, deque[tuple[Frame, int]]] | None = None
        self._running: dict[int, str] | None = None
        self._counts: dict[str, int] | None = None

    def begin(self, ticket: int, channel: str) -> None:
        """An operation is in flight to the store."""
        self._running = self._running or {}
        self._counts = self._counts or {}
        self._running[ticket] = channel
        self._counts[channel] = self._counts.get(channel, 0) + 1

    def end(self, ticket: int) -> str | None:
        """An operation was answered. Returns its channel where frames wait for that."""
        channel = self._running.pop(ticket, None) if self._running else None
        if channel is None or self._counts is None:
            return None
        left = self._counts[channel] - 1
        if left:
            self._counts[channel] = left
            return None
        del self._counts[channel]
        self._running, self._counts = self._running or None, self._counts or None
        return channel if self.holds(channel) else None

    def is_busy(self, channel: str) -> bool:
        """Whether operations on a channel are in flight."""
        return self._counts is not None and channel in self._counts

    def holds(self, channel: str) -> bool:
        """Whether frames of a channel wait."""
        return self._waiting is not None and channel in self._waiting

    def postpone(self, channel: str, frame: Frame, ticket: int) -> None:
        """Have a frame wait behind those of its channel. `ticket`: that of its answer, 0 for none."""
        self._waiting = self._waiting or {}
        self._waiting.setdefault(channel, deque()).append((frame, ticket))
        self.waiting += 1

    def peek(self, channel: str) -> Frame | None:
        """The frame of a channel that is next."""
        return self._waiting[channel][0][0] if self._waiting and channel in self._waiting else None

    def pop(self, channel: str) -> tuple[Frame, int]:
        """Take the frame that is next. Raises KeyError where none waits."""
        if self._waiting is None:
            raise KeyError(channel)
        frames = self._waiting[channel]
        found = frames.popleft()
        self.waiting -= 1
        if not frames:
            del self._waiting[channel]
            self._waiting = self._waiting or None
        return found

    def clear(self) -> list[tuple[Frame, int]]:
        """Take all frames that wait, those of one channel in order."""
        frames = [one for waiting in (self._waiting or {}).values() for one in waiting]
        self._waiting, self.waiting = None, 0
        return frames
