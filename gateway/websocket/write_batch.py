"""Joins the frames of each socket while several notifications are handed out at once, into one write per socket."""

from __future__ import annotations

from typing import Protocol


class Flushable(Protocol):
    """A socket with frames that wait."""

    def flush(self) -> None: ...  # noqa: D102


class Outbox:
    """While it is `open`, sockets keep their frames and enter themselves; closing it has them written.

    Open only within one callback of the event loop: what is written then leaves within the same callback, and nothing
    that another callback writes, an ACK say, ever waits.
    """

    __slots__ = ("open", "sockets")

    def __init__(self) -> None:
        self.open = False
        # To be flushed at the end.
        self.sockets: list[Flushable] = []

    def __enter__(self) -> None:
        self.open = True

    def __exit__(self, *_: object) -> None:
        self.open = False
        sockets, self.sockets = self.sockets, []
        for socket in sockets:
            socket.flush()
