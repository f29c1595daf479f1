"""A session as server-sent events, for places where websockets are blocked (REC-13)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import orjson

from gateway.auth.authenticator import Credential
from gateway.fanout.delivery import Variant
from gateway.fanout.start import SubscriptionStart
from gateway.fanout.subscription import Gap, Subscription
from gateway.http_api.event_stream import EventStream
from gateway.http_api.pull_outlet import PullOutlet, patience_s, refusal
from gateway.services import Services
from selfhost_transport.errors import ErrorInfo
from selfhost_transport.wire.actions import Action, Flag
from selfhost_transport.wire.codec import Format
from selfhost_transport.wire.frame import Frame, encode_frame
from selfhost_transport.wire.serial import format_position

_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


async def stream_events(
    services: Services, session: str, last_event_id: str | None, credential: Credential
) -> EventStream:
    """Events `message` (a MESSAGE frame; its id is the position) and `attached` (ATTACHED: where it began, or a gap).

    The last one is `error`: the credentials expire or are revoked (come back with new ones and `Last-Event-ID`), or the session
    was erased.
    Raises StoreUnavailable.
    """
    out = PullOutlet()

    def on_gap(gap: Gap) -> None:
        if gap.is_end:
            out.write(_error(gap.error))
            out.end()
            return
        serial = format_position(gap.position, subscription.epoch)
        out.write(_attached(Frame(Action.ATTACHED, channel=session, channel_serial=serial, error=gap.error)))

    hidden = services.hidden_from(credential, session)
    subscription = Subscription(out, Variant(Format.JSON, session, hidden, envelope=_message), on_gap)
    await services.admit_stream(credential, session, out)
    try:
        feed = await services.hub.join(session, subscription)
        try:
            start = await services.hub.start_of(feed, subscription, last_event_id, None)
        except BaseException:
            services.hub.leave(feed, subscription)
            raise
    except BaseException:
        services.release_stream(out)
        raise
    services.board.count(session, None, Flag.SUBSCRIBE, credential.identity.client_id)

    async def release() -> None:
        services.release_stream(out)
        services.board.count(session, Flag.SUBSCRIBE, None, credential.identity.client_id)
        services.hub.leave(feed, subscription)

    events = _events(services, session, subscription, out, start, credential)
    return EventStream(events, release, _HEADERS)


async def _events(
    services: Services,
    session: str,
    subscription: Subscription,
    out: PullOutlet,
    start: SubscriptionStart,
    credential: Credential,
) -> AsyncIterator[bytes]:
    attached = start.attached
    out.write(
        _attached(
            Frame(
                Action.ATTACHED,
                channel=session,
                channel_serial=attached.channel_serial,
                flags=Flag.RESUMED if attached.resumed else 0,
                error=attached.error,
            )
        )
    )
    subscription.release(start.backlog)
    while True:
        taken = await out.take(patience_s(credential))
        if (refused := refusal(services, credential)) is not None:
            yield _error(refused)
            return
        if not taken and not out.ended:
            yield b": keep-alive\n\n"
            continue
        yield b"".join(taken)
        if out.ended:
            return
        subscription.drained()


def _error(error: ErrorInfo) -> bytes:
    return b"event: error\ndata: " + orjson.dumps({"error": error.to_wire()}) + b"\n\n"


def _message(payload: bytes, serial: str) -> bytes:
    """The envelope of what is delivered."""
    return _event(b"message", payload, serial)


def _attached(frame: Frame) -> bytes:
    return _event(b"attached", encode_frame(frame, Format.JSON), frame.channel_serial or "")


def _event(name: bytes, payload: bytes, serial: str) -> bytes:
    return b"".join((b"event: ", name, b"\nid: ", serial.encode(), b"\ndata: ", payload, b"\n\n"))
