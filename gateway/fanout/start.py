"""Where a subscription begins: at the end of the log, where it left off, or some messages back (sections 5.2 to 5.4)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from gateway.auth.authenticator import now_ms
from gateway.fanout.delivery import Delivery, encode_messages
from gateway.fanout.feed import SessionFeed
from gateway.fanout.subscription import AttachResult, Subscription
from selfhost_transport.errors import ContinuityLost, ErrorInfo, InvalidArgument, LogRewound
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.history import Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns.withholding import shown
from selfhost_transport.wire.channel import RewindCount, RewindTime
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, format_position, parse_position

_MAX_REWIND: Final = 100


@dataclass(slots=True)
class SubscriptionStart:
    """Where a subscription begins: the contents of ATTACHED, and the deliveries right after it."""

    attached: AttachResult
    # Encoded frames: rewound messages.
    preface: list[bytes] = field(default_factory=list)
    backlog: list[Delivery] = field(default_factory=list)


async def start_of(
    store: SessionStore,
    feed: SessionFeed,
    subscription: Subscription,
    resume_from: str | None,
    rewind: RewindCount | RewindTime | None,
) -> SubscriptionStart:
    """Where a held subscription begins. Raises StoreUnavailable."""
    if resume_from is not None:
        return await _resumed(store, feed, subscription, resume_from)
    if rewind is not None:
        return await _rewound(store, feed, subscription, rewind)
    return SubscriptionStart(AttachResult(format_position(subscription.start, feed.epoch)))


async def _resumed(
    store: SessionStore, feed: SessionFeed, subscription: Subscription, serial: str
) -> SubscriptionStart:
    here = subscription.start
    head = await store.open(feed.session)
    try:
        after, epoch, _ = parse_position(serial)
    except InvalidArgument:
        after, epoch = Position.ZERO, ""
    if epoch != feed.epoch or after > max(here, head.position):
        info = error_info(Code.POSITION_UNKNOWN)
        if epoch == feed.epoch:
            # The client's position is beyond the end of the log: Redis lost writes.
            info = replace(info, detail=LogRewound.DETAIL)
        return SubscriptionStart(AttachResult(format_position(here, feed.epoch), error=info))
    error: ErrorInfo | None = None
    try:
        backlog = await feed.backlogs.shared(feed.epoch, after, here)
    except ContinuityLost as lost:
        # The rest is still replayed: the position belongs to this session.
        error, after = lost.info, head.floor
        backlog = await feed.backlogs.shared(feed.epoch, after, here)
    # SYNC carries the current members, and summaries the annotations (section 5.4).
    backlog = [one for one in backlog if not (one.is_presence or one.is_annotation)]
    subscription.resume(after)
    attached = AttachResult(
        format_position(after, feed.epoch), resumed=error is None, backlog=bool(backlog), error=error
    )
    return SubscriptionStart(attached, backlog=backlog)


async def _rewound(
    store: SessionStore, feed: SessionFeed, subscription: Subscription, rewind: RewindCount | RewindTime
) -> SubscriptionStart:
    here, variant = subscription.start, subscription.variant
    query = _query(subscription, rewind)
    if query.limit == 0 or rewind == RewindCount(0):
        return SubscriptionStart(AttachResult(format_position(here, feed.epoch)))
    page = await store.history.page(feed.session, query)
    messages = list(filter(variant.passes, page.messages))
    if isinstance(rewind, RewindCount):
        messages = messages[: rewind.count]
    messages.reverse()
    preface = [_rewound_frame(feed, subscription, message) for message in messages[:-1]]
    if messages:
        # After the last one a resume continues from where the subscription began.
        preface.append(_rewound_frame(feed, subscription, messages[-1], here))
    first = _before_first(messages, here)
    return SubscriptionStart(
        AttachResult(format_position(first, feed.epoch), backlog=bool(messages)), preface=preface
    )


def _query(subscription: Subscription, rewind: RewindCount | RewindTime) -> Query:
    here, variant = subscription.start, subscription.variant
    visible = shown(variant.hidden)
    if isinstance(rewind, RewindTime):
        start_ms = now_ms() - rewind.ms
        return Query(limit=_MAX_REWIND, until=here, start_ms=start_ms, align=False, visible=visible)
    # What a filter selects is known of the messages as they are now only.
    limit = rewind.count if variant.filter is None else _MAX_REWIND
    return Query(limit=limit, until=here, align=False, visible=visible)


def _rewound_frame(
    feed: SessionFeed, subscription: Subscription, message: Message, position: Position | None = None
) -> bytes:
    assert message.serial is not None and message.version is not None
    created, _, index = parse_position(message.serial)
    subscription.note_seen(Ref(created, index or 0), parse_position(message.version.serial)[0])
    return encode_messages(subscription.variant, position or created, feed.epoch, [message])


def _before_first(messages: list[Message], here: Position) -> Position:
    if not messages or messages[0].serial is None:
        return here
    return parse_position(messages[0].serial)[0].before
