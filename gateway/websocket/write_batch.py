"""Joins the frames of each socket while several notifications are handed out at once, into one write per socket."""

from __future__ import annotations

from selfhost_transport.accelerator import SendBuffer, send_all


class WriteBatch:
    """While it is `open`, sockets keep their frames in a buffer, which is entered here; closing it has them written.

    Open only within one callback of the event loop: what is written then leaves within the same callback, and nothing
    that another callback writes, an ACK say, ever waits.
    """

    __slots__ = ("buffers", "open")

    def __init__(self) -> None:
        self.open = False
        # With something to be sent at the end.
        self.buffers: list[SendBuffer] = []

    def __enter__(self) -> None:
        self.open = True

    def __exit__(self, *_: object) -> None:
        self.open = False
        if self.buffers:
            buffers, self.buffers = self.buffers, []
            send_all(buffers)
