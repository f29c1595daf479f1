"""From the notifications of one read to the sockets of their readers, in Python: the reference for `_fan_out.h`.

The callback of a channel is a `Way`. While its session is nothing but appends to one message, the way has a `Lane`,
which knows the frames' templates and the `SendBuffer` of each reader's socket. `hand_out` takes what such lanes can
take, and stops at everything else; `send_all` empties the buffers that were written to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from selfhost_transport.accelerator.plain import Template, append_frames

MAX_JOINED: Final = 32_768
"""Bytes that wait in one buffer; more is passed on at once, so that a full socket shows."""
_KINDS: Final = (b"message", b"smessage")


class SendBuffer:
    """What waits for one socket until the end of a batch. `spill` gets all of it at once.

    `fd`: the socket's, while nothing waits in its transport, else -1; the compiled form sends there itself, and spills
    only what the socket does not take. `closed`: nothing more is written. `congested`: too much waits.
    """

    __slots__ = ("_joined", "_spill", "closed", "congested", "fd")

    def __init__(self, spill: Callable[[bytes], object]) -> None:
        self._spill: Callable[[bytes], object] | None = spill
        self._joined = b""
        self.fd = -1
        self.closed = self.congested = False

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return len(self._joined)

    def add(self, frame: bytes, touched: list[SendBuffer]) -> None:
        """Keep a frame; the first one enters the buffer into `touched`."""
        if self.closed or not frame:
            return
        if self._joined:
            self._joined += frame
        else:
            self._joined = frame
            touched.append(self)
        if len(self._joined) > MAX_JOINED:
            self.flush()

    def flush(self) -> None:
        """Pass everything on."""
        joined, self._joined = self._joined, b""
        if joined and self._spill is not None:
            self._spill(joined)

    def end(self) -> None:
        """The socket is gone: forget what waits."""
        self.closed = True
        self.fd = -1
        self._spill = None
        self._joined = b""


class Lane:
    """The way of the appends to one message. `last`: the newest position as Redis names it.

    `buffers`: for each template those of its readers. Raises ValueError for a position too long, or another number of them.
    """

    __slots__ = ("_buffers", "_entry_head", "_epoch", "_templates", "last")

    def __init__(
        self,
        last: bytes,
        entry_head: bytes,
        epoch: bytes,
        templates: tuple[Template, ...],
        buffers: tuple[tuple[SendBuffer, ...], ...],
    ) -> None:
        if len(templates) != len(buffers):
            raise ValueError("each template has its buffers")
        if len(last) > 19:
            raise ValueError("a position has 14 digits and 3 at most")
        self.last = last
        self._entry_head = entry_head
        self._epoch = epoch
        self._templates = templates
        self._buffers = buffers

    def take(self, notification: bytes, touched: list[SendBuffer]) -> tuple[int, int] | None:
        """Write the frames of the next append: to how many, and its ms since the epoch.

        None where it is anything else, or a reader's socket is full.
        """
        for buffers in self._buffers:
            for buffer in buffers:
                if buffer.congested:
                    return None
        made = append_frames(notification, self.last, self._entry_head, self._epoch, self._templates)
        if made is None:
            return None
        self.last, ms, frames = made
        written = 0
        for frame, buffers in zip(frames, self._buffers, strict=True):
            fits = len(frame) <= MAX_JOINED
            for buffer in buffers:
                if buffer.closed:
                    continue
                written += 1
                if buffer._joined or not fits:
                    buffer.add(frame, touched)
                else:
                    # As `add` begins, without a call for each reader: there may be hundreds.
                    buffer._joined = frame
                    touched.append(buffer)
        return written, ms


class Way:
    """The callback of a channel. `waiting`: notifications of it wait for their turn, so no later one may go before."""

    __slots__ = ("_callback", "lane", "waiting")

    def __init__(self, callback: Callable[[bytes], object]) -> None:
        self._callback = callback
        self.lane: Lane | None = None
        self.waiting = False

    def __call__(self, payload: bytes) -> object:
        """One notification, in the way of all that are not for a lane."""
        return self._callback(payload)


def hand_out(
    replies: list[Any], at: int, until: int, ways: dict[bytes, Any], touched: list[SendBuffer]
) -> tuple[int, int, int]:
    """Fan replies of a subscriber's connection out from `at` on, before `until`, by their channels' lanes.

    Returns the index of the first that is not for it, how many frames were written, and the ms of the last append.
    """
    written = ms = 0
    while at < min(until, len(replies)):
        reply = replies[at]
        if not isinstance(reply, list) or len(reply) != 3 or reply[0] not in _KINDS:
            break
        way = ways.get(reply[1])
        if type(way) is not Way or way.waiting or way.lane is None:
            break
        taken = way.lane.take(reply[2], touched)
        if taken is None:
            break
        written += taken[0]
        ms = taken[1]
        at += 1
    return at, written, ms


def send_all(buffers: list[SendBuffer]) -> None:
    """Empty the buffers."""
    for buffer in buffers:
        # As `flush`, without a call for each reader.
        joined, buffer._joined = buffer._joined, b""
        spill = buffer._spill
        if joined and spill is not None:
            spill(joined)
