"""What a client sends over a websocket: bytes in, whole messages and control frames out (RFC 6455, section 5). No I/O.

The parsing of a single frame is that of the `websockets` library.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeAlias, cast

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.streams import StreamReader

Buffer: TypeAlias = bytes | memoryview
Incoming: TypeAlias = str | bytes | Frame | Close
"""A message; a ping or pong; or the client's last word."""


class Unreadable(Exception):
    """What a client sent cannot be read, nor what comes after it. `code`: that of the close frame to answer with."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Inbound:
    """The way in of one websocket; it holds nothing while nothing is half received.

    `max_size`: bytes of a message at most, its fragments together.
    """

    __slots__ = ("_kind", "_max_size", "_parsing", "_partial", "_reader")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._reader: StreamReader | None = None
        self._parsing: Generator[None, None, Frame] | None = None
        # A message whose last fragment has not come, and which kind it is.
        self._partial: bytearray | None = None
        self._kind = Opcode.TEXT

    def receive(self, data: Buffer) -> Iterator[Incoming]:
        """The frames that these bytes complete, in order.

        Raises Unreadable.
        """
        try:
            yield from self._receive(data)
        except PayloadTooBig as error:
            raise Unreadable(CloseCode.MESSAGE_TOO_BIG, "message too big") from error
        except ProtocolError as error:
            raise Unreadable(CloseCode.PROTOCOL_ERROR, str(error)) from error
        except UnicodeDecodeError as error:
            raise Unreadable(CloseCode.INVALID_DATA, "text that is not UTF-8") from error

    def _receive(self, data: Buffer) -> Iterator[Incoming]:
        if self._reader is None:
            self._reader = StreamReader()
        self._reader.feed_data(cast(bytes, data))  # it copies from any buffer
        while (frame := self._frame(self._reader)) is not None:
            if frame.opcode is Opcode.CLOSE:
                yield Close.parse(bytes(frame.data))
            elif frame.opcode in (Opcode.PING, Opcode.PONG):
                yield frame
            elif (message := self._message(frame)) is not None:
                yield message
        if self._parsing is None:
            self._reader = None

    def _frame(self, reader: StreamReader) -> Frame | None:
        if self._parsing is None:
            if not reader.buffer:
                return None
            room = self._max_size - len(self._partial or b"")
            self._parsing = Frame.parse(reader.read_exact, mask=True, max_size=room)
        try:
            next(self._parsing)
        except StopIteration as parsed:
            self._parsing = None
            frame: Frame = parsed.value
            return frame
        return None

    def _message(self, frame: Frame) -> str | bytes | None:
        if (frame.opcode is Opcode.CONT) != (self._partial is not None):
            raise ProtocolError("a fragment without a beginning, or a message within another")
        if frame.opcode is not Opcode.CONT:
            self._kind = frame.opcode
        data = bytes(frame.data)
        if self._partial is not None:
            self._partial += data
        elif not frame.fin:
            self._partial = bytearray(data)
        if not frame.fin:
            return None
        if self._partial is not None:
            data, self._partial = bytes(self._partial), None
        return data.decode() if self._kind is Opcode.TEXT else data
