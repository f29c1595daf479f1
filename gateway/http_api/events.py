"""A session as server-sent events, for places where websockets are blocked (REC-13)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

import orjson
from starlette.responses import StreamingResponse

from gateway.auth.authenticator import Credential, now_ms
from gateway.fanout.delivery import Variant
from gateway.fanout.feed import SessionFeed
from gateway.fanout.hub import Start
from gateway.fanout.subscription import Attachment, Gap
from gateway.services import Services
from selfhost_transport.errors import ErrorInfo, TransportError
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.frame import Frame, encode_frame
from selfhost_transport.wire.serial import format_position

MAX_WAITING_BYTES = 1_048_576
KEEPALIVE_S = 15.0


class _Stream:
    """The way out of an attachment whose reader pulls: websocket frames are unwrapped into events."""

    def __init__(self) -> None:
        self.congested = False
        # The gateway stops: what has arrived is the last.
        self.ended = False
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._arrived = asyncio.Event()

    def write(self, frame: bytes) -> None:
        """Take one complete websocket frame."""
        payload = frame[{126: 4, 127: 10}.get(frame[1], 2) :]
        self._waiting.append(payload)
        self._size += len(payload)
        self.congested = self._size > MAX_WAITING_BYTES
        self._arrived.set()

    def end(self) -> None:
        """Let the reader go; it comes back with the id of the last event."""
        self.ended = True
        self._arrived.set()

    async def take(self, patience_s: float) -> list[bytes]:
        """What has arrived; nothing if that is so for this long."""
        if not self._waiting and not self.ended:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._arrived.wait()
        taken = list(self._waiting)
        self._waiting.clear()
        self._size = 0
        self.congested = False
        return taken


async def stream_events(
    services: Services, session: str, last_event_id: str | None, credential: Credential
) -> StreamingResponse:
    """Events `message` (a MESSAGE frame; its id is the position) and `attached` (ATTACHED: where it began, or a gap).

    The last one is `error`, when the credentials expire or are revoked: come back with new ones and `Last-Event-ID`.
    Raises StoreUnavailable.
    """
    out = _Stream()
    feeds: list[SessionFeed] = []

    def on_gap(gap: Gap) -> None:
        serial = format_position(gap.position, feeds[0].series)
        out.write(_attached(session, serial, Frame(Action.ATTACHED, error=gap.error)))

    hidden = services.hidden_from(credential, session)
    attachment = Attachment(out, Variant(Format.JSON, session, hidden), on_gap)
    feed = await services.hub.join(session, attachment)
    feeds.append(feed)
    try:
        start = await services.hub.start_of(feed, attachment, last_event_id, None)
    except BaseException:
        services.hub.leave(feed, attachment)
        raise
    return StreamingResponse(
        _events(services, session, feed, attachment, out, start, credential),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(
    services: Services,
    session: str,
    feed: SessionFeed,
    attachment: Attachment,
    out: _Stream,
    start: Start,
    credential: Credential,
) -> AsyncIterator[bytes]:
    services.streams.add(out)
    services.board.count(session, None, Flag.SUBSCRIBE)
    try:
        frame = Frame(Action.ATTACHED, flags=4 if start.attached.resumed else 0, error=start.attached.error)
        out.write(_attached(session, start.attached.channel_serial, frame))
        feed.release(attachment, start.backlog)
        while True:
            taken = await out.take(_patience_s(credential))
            if (refused := _refusal(services, credential)) is not None:
                yield b"event: error\ndata: " + orjson.dumps({"error": refused.to_wire()}) + b"\n\n"
                return
            if not taken and not out.ended:
                yield b": keep-alive\n\n"
                continue
            yield b"".join(_event(payload) for payload in taken)
            if out.ended:
                return
            feed.drained(attachment)
    finally:
        services.streams.discard(out)
        services.board.count(session, Flag.SUBSCRIBE, None)
        services.hub.leave(feed, attachment)


def _patience_s(credential: Credential) -> float:
    if credential.expires_ms is None:
        return KEEPALIVE_S
    return min(KEEPALIVE_S, max(0.0, (credential.expires_ms - now_ms()) / 1000))


def _refusal(services: Services, credential: Credential) -> ErrorInfo | None:
    """Why a caller may not read on; None while it may."""
    if credential.expires_ms is not None and credential.expires_ms <= now_ms():
        return error_info(Code.TOKEN_EXPIRED)
    try:
        services.revocations.check(credential)
    except TransportError as error:
        return error.info
    return None


def _attached(session: str, serial: str, frame: Frame) -> bytes:
    frame.channel, frame.channel_serial = session, serial
    payload = encode_frame(frame, Format.JSON)
    # Unwrapped again by `write`: the shortest header will do.
    return b"\x81\x00" + payload


def _event(payload: bytes) -> bytes:
    name, position = _read(payload)
    return b"event: " + name + b"\nid: " + position + b"\ndata: " + payload + b"\n\n"


_SERIAL = b'"channelSerial":"'


def _read(payload: bytes) -> tuple[bytes, bytes]:
    """Kind and position of a frame that this gateway encoded; data is JSON text, which has no bare quotes."""
    at = payload.rindex(_SERIAL) + len(_SERIAL)
    name = b"attached" if payload.startswith(b'{"action":11') else b"message"
    return name, payload[at : payload.index(b'"', at)]
