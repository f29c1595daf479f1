"""Characters that a client cuts in two between appends (STR-16).

JavaScript's strings are of 16-bit units, and a model's tokens may end inside a character. Each half alone is no text in
UTF-8, and would become U+FFFD twice. The first is held back until the next append to its message.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from selfhost_transport.wire.actions import MessageAction

MAX_HELD: Final = 1_000
"""Messages with a half held back; the oldest is given up."""

_LOST = "\ufffd"


class Halves:
    """Of one connection."""

    __slots__ = ("_held", "joined")

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[object, str], str] = OrderedDict()
        # Number of parsed frames.
        self.joined = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def join(self, frame: Any) -> None:
        """Complete and hold back halves in a frame's appends, as read, with its surrogates."""
        self.joined += 1
        messages = frame.get("messages") if isinstance(frame, dict) else None
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict) and message.get("action") == MessageAction.APPEND:
                self._join(frame.get("channel"), message)

    def _join(self, channel: object, message: dict[str, Any]) -> None:
        serial, data = message.get("serial"), message.get("data") or ""
        if not isinstance(serial, str) or not isinstance(data, str) or message.get("encoding"):
            return
        half = self._held.pop((channel, serial), "")
        text = half + data
        if data and "\ud800" <= text[-1] <= "\udbff":
            self._held[channel, serial] = text[-1]
            text = text[:-1]
            if len(self._held) > MAX_HELD:
                self._held.popitem(last=False)
        if text != data:
            # Without its other half, also at the end of the message, it is lost.
            message["data"] = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
