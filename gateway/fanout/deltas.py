"""Messages as deltas from the one before them, for attachments with the param `delta=vcdiff` (section 14.4).

Frames for all others are encoded once. What is written to such a subscription is taken apart again here: who has
seen what differs from subscription to subscription, and few ask for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gateway.fanout.delivery import encode_websocket
from selfhost_transport.errors import BadRequest
from selfhost_transport.wire.actions import Action, MessageAction
from selfhost_transport.wire.frame import decode_frame
from selfhost_transport.wire.message import Format, Message
from selfhost_transport.wire.vcdiff import make_delta
from selfhost_transport.wire.websocket import ws_payload

_FORMAT: Final = "vcdiff"
# Encodings of text that decoders reach by way of bytes.
_TEXT: Final = {None: "utf-8", "": "utf-8", "json": "json/utf-8"}


class DeltaWriter:
    """Writes a subscription's frames. The first message, and any without data to compare with, goes out whole."""

    def __init__(self, write: Callable[[bytes], None], fmt: Format) -> None:
        self._write = write
        self._fmt = fmt
        # Id and payload of the last message the client got: what it decodes the next delta with.
        self._id: str | None = None
        self._payload = b""

    def write(self, raw: bytes) -> None:
        """One complete websocket frame. One that cannot be read goes out as it is, and the next message whole."""
        try:
            frame = decode_frame(ws_payload(raw), self._fmt)
        except BadRequest:
            self._id = None
        else:
            if frame.action == Action.MESSAGE and frame.messages:
                messages = [self._next(message) for message in frame.messages]
                raw = encode_websocket(replace(frame, messages=messages), self._fmt)
        self._write(raw)

    def _next(self, message: Message) -> Message:
        data = message.data if message.data is not None else b""
        payload = data.encode() if isinstance(data, str) else data
        sent = self._delta(message, payload)
        self._id, self._payload = message.id, payload
        return sent

    def _delta(self, message: Message, payload: bytes) -> Message:
        encoding = _chain(message)
        if not (self._id and self._payload and payload and encoding):
            return message
        # Changes of a message have their own form (section 7.4).
        if message.action is not MessageAction.CREATE:
            return message
        delta = make_delta(self._payload, payload)
        if len(delta) > len(payload):
            return message
        extras = {**(message.extras or {}), "delta": {"from": self._id, "format": _FORMAT}}
        return replace(message, data=delta, encoding=encoding, extras=extras)


def _chain(message: Message) -> str | None:
    """The encoding of a message as a delta; None where decoders could not undo it."""
    if isinstance(message.data, bytes):
        return f"{message.encoding}/{_FORMAT}" if message.encoding else _FORMAT
    inner = _TEXT.get(message.encoding)
    return None if inner is None else f"{inner}/{_FORMAT}"
