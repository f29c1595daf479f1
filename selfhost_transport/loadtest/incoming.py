"""Frames as the generator reads them: only the fields that it measures or verifies, decoded in one step.

`selfhost_transport.wire` reads everything and checks everything; here a frame has to cost about a microsecond,
so that the generator is not what a test measures. Headers stay packed until they are needed.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from selfhost_transport.errors import ConnectionFailed
from selfhost_transport.wire.codec import Format


class IncomingVersion(msgspec.Struct, frozen=True, gc=False):
    """`version` of a message: its serial."""

    serial: str = ""


class IncomingMessage(msgspec.Struct):
    """One message of a MESSAGE frame; `extras` is still packed."""

    serial: str = ""
    action: int = 0
    name: str | None = None
    data: str | None = None
    extras: msgspec.Raw = msgspec.Raw(b"")
    version: IncomingVersion = IncomingVersion()


class IncomingError(msgspec.Struct, rename="camel"):
    """An ErrorInfo."""

    code: int = 50000
    status_code: int = 500
    message: str = ""


class IncomingDetails(msgspec.Struct, rename="camel"):
    """The fields needed of `connectionDetails`."""

    connection_key: str = ""


class IncomingTurn(msgspec.Struct):
    """`res[0].turn` of a send."""

    id: str = ""
    status: str = ""
    interrupted: list[str] = []


class IncomingCancel(msgspec.Struct, rename="camel"):
    """`res[0].cancel`: after `position` no content of a matched turn may come (P2)."""

    position: str = ""
    matched: list[str] = []
    already_ended: list[str] = []


class IncomingResult(msgspec.Struct):
    """`res[0]` of an ACK."""

    serials: list[str | None] = []
    turn: IncomingTurn | None = None
    cancel: IncomingCancel | None = None


class Incoming(msgspec.Struct, rename="camel"):
    """A frame from the gateway."""

    action: int
    channel: str | None = None
    channel_serial: str | None = None
    connection_id: str | None = None
    connection_details: IncomingDetails | None = None
    msg_serial: int | None = None
    count: int = 1
    flags: int = 0
    res: list[IncomingResult] | None = None
    error: IncomingError | None = None
    messages: list[IncomingMessage] = []


class _Tiers(msgspec.Struct, frozen=True):
    transport: dict[str, str] = {}
    codec: dict[str, str] = {}


class _Extras(msgspec.Struct):
    ai: _Tiers = _Tiers()


_NO_HEADERS: dict[str, str] = {}


class _FrameDecoder(Protocol):
    def decode(self, raw: bytes, /) -> Incoming: ...


class _ExtrasDecoder(Protocol):
    def decode(self, raw: msgspec.Raw, /) -> _Extras: ...


class FormatReader:
    """Reads the frames of one format."""

    def __init__(self, fmt: Format) -> None:
        self._frames: _FrameDecoder
        self._extras: _ExtrasDecoder
        if fmt is Format.JSON:
            self._frames, self._extras = msgspec.json.Decoder(Incoming), msgspec.json.Decoder(_Extras)
        else:
            self._frames, self._extras = msgspec.msgpack.Decoder(Incoming), msgspec.msgpack.Decoder(_Extras)

    def frame(self, payload: bytes) -> Incoming:
        """Raises ConnectionFailed for a payload that is no frame."""
        try:
            return self._frames.decode(payload)
        except msgspec.MsgspecError as error:
            raise ConnectionFailed(f"the gateway sent an invalid frame: {error}") from error

    def headers(self, message: IncomingMessage) -> dict[str, str]:
        """The transport headers of a message; empty when it has none."""
        if not message.extras:
            return _NO_HEADERS
        try:
            return self._extras.decode(message.extras).ai.transport
        except msgspec.MsgspecError:
            return _NO_HEADERS


READERS = {fmt: FormatReader(fmt) for fmt in Format}
