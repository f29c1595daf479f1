"""A session as server-sent events, for places where websockets are blocked (REC-13)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import orjson

from gateway.auth.authenticator import Credential
from gateway.fanout.delivery import Variant
from gateway.fanout.feed import SessionFeed
from gateway.fanout.hub import Start
from gateway.fanout.subscription import Gap, Subscription
from gateway.http_api.event_stream import EventStream
from gateway.http_api.pull_outlet import PullOutlet, patience_s, refusal
from gateway.services import Services
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, encode_frame
from selfhost_transport.wire.serial import format_position

_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def stream_events(
    services: Services, session: str, last_event_id: str | None, credential: Credential
) -> EventStream:
    """Events `message` (a MESSAGE frame; its id is the position) and `attached` (ATTACHED: where it began, or a gap).

    The last one is `error`, when the credentials expire or are revoked: come back with new ones and `Last-Event-ID`.
    Raises StoreUnavailable.
    """
    out = PullOutlet()
    feeds: list[SessionFeed] = []

    def on_gap(gap: Gap) -> None:
        serial = format_position(gap.position, feeds[0].series)
        out.write(_attached(session, serial, Frame(Action.ATTACHED, error=gap.error)))

    hidden = services.hidden_from(credential, session)
    subscription = Subscription(out, Variant(Format.JSON, session, hidden), on_gap)
    await services.admit_stream(credential, session, out)
    try:
        feed = await services.hub.join(session, subscription)
        feeds.append(feed)
        try:
            start = await services.hub.start_of(feed, subscription, last_event_id, None)
        except BaseException:
            services.hub.leave(feed, subscription)
            raise
    except BaseException:
        services.streams.pop(out, None)
        raise
    services.board.count(session, None, Flag.SUBSCRIBE)

    async def release() -> None:
        services.streams.pop(out, None)
        services.board.count(session, Flag.SUBSCRIBE, None)
        services.hub.leave(feed, subscription)

    return EventStream(
        _events(services, session, feed, subscription, out, start, credential), release, _HEADERS
    )


async def _events(
    services: Services,
    session: str,
    feed: SessionFeed,
    subscription: Subscription,
    out: PullOutlet,
    start: Start,
    credential: Credential,
) -> AsyncIterator[bytes]:
    frame = Frame(Action.ATTACHED, flags=4 if start.attached.resumed else 0, error=start.attached.error)
    out.write(_attached(session, start.attached.channel_serial, frame))
    feed.release(subscription, start.backlog)
    while True:
        taken = await out.take(patience_s(credential))
        if (refused := refusal(services, credential)) is not None:
            yield b"event: error\ndata: " + orjson.dumps({"error": refused.to_wire()}) + b"\n\n"
            return
        if not taken and not out.ended:
            yield b": keep-alive\n\n"
            continue
        yield b"".join(_event(payload) for payload in taken)
        if out.ended:
            return
        feed.drained(subscription)


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
