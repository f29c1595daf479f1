"""The sessions this process watches: one Redis subscription each, however many readers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field, replace
from functools import partial

from gateway.auth.authenticator import now_ms
from gateway.background import Background
from gateway.fanout.delivery import Delivery, encode_messages
from gateway.fanout.feed import Counters, SessionFeed
from gateway.fanout.inbox import Inbox
from gateway.fanout.subscription import Attached, Subscription
from gateway.websocket.write_batch import Outbox
from selfhost_transport.errors import (
    ContinuityLost,
    ErrorInfo,
    InvalidArgument,
    LogRewound,
    StoreUnavailable,
    TransportError,
)
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.history import Query
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.turns.withholding import shown
from selfhost_transport.wire.channel import RewindCount, RewindTime
from selfhost_transport.wire.codes import Code, error_info
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, format_position, parse_position

logger = logging.getLogger(__name__)

LINGER_S = 5.0
"""How long a session without attachments stays subscribed: clients that reconnect find it warm."""
START_TIMEOUT_S = 8.0
FORGET_IDLE_S = 30.0
"""How often sessions forget the messages that nothing was appended to since the time before."""
REACH_END_TIMEOUT_S = 1.0
_MAX_REWIND = 100


@dataclass(slots=True)
class Start:
    """Where a subscription begins: the contents of ATTACHED, and the deliveries right after it."""

    attached: Attached
    # Complete websocket frames: rewound messages.
    preface: list[bytes] = field(default_factory=list)
    backlog: list[Delivery] = field(default_factory=list)


class SessionHub:
    """Feeds by session, started with the first subscription and ended some time after the last."""

    def __init__(self, store: SessionStore, redis_url: str, counters: Counters) -> None:
        self._store = store
        # Where sockets keep what several notifications that arrived together have for them.
        self.outbox = Outbox()
        self.inbox = Inbox(self.outbox)
        self._subscriber = Subscriber(redis_url, on_reconnect=self.reconnected, batch=self.inbox)
        self._counters = counters
        self._background = Background("session-feed")
        self._feeds: dict[str, SessionFeed] = {}
        self._starting: dict[str, asyncio.Task[None]] = {}
        self._forgetting: asyncio.TimerHandle | None = None
        self._to_look_at: list[SessionFeed] = []

    @property
    def sessions(self) -> int:
        """Sessions that are subscribed."""
        return len(self._feeds)

    @property
    def connected(self) -> bool:
        """Whether notifications arrive; without a session to watch there is no connection to lose."""
        return not self._feeds or self._subscriber.connected

    def feed(self, session: str) -> SessionFeed | None:
        """The feed of a session that is watched."""
        return self._feeds.get(session)

    def reconnected(self) -> None:
        """The subscriptions were away for a while: every session is compared with its log (P7)."""
        for session, feed in self._feeds.items():
            if session not in self._starting:
                feed.compare()

    async def look_at_quiet(self, most: int) -> int:
        """Compare sessions with Redis that nothing came of since the last look, `most` at a time, in turn.

        Keys may vanish under a connection that stays up: then nothing is ever announced again. Returns how many sessions
        were found to be behind or ahead of their log, and are compared with it now. Raises StoreUnavailable.
        """
        if self.inbox.size:
            # A feed that is behind is known to be, and misses no notification.
            return 0
        if not self._to_look_at:
            self._to_look_at = list(self._feeds.values())
        chosen, self._to_look_at = self._to_look_at[:most], self._to_look_at[most:]
        quiet = [feed for feed in chosen if not feed.closed and feed.is_quiet()]
        heads = await asyncio.gather(*(self._store.head(feed.session) for feed in quiet))
        differing = [feed for feed, head in zip(quiet, heads, strict=True) if feed.differs(head)]
        for feed in differing:
            feed.compare()
        return len(differing)

    async def join(self, session: str, subscription: Subscription) -> SessionFeed:
        """Hold a session's entries for a subscription, from an end of the log read now. Raises StoreUnavailable.

        Notifications of what was acknowledged just before may still be in flight to a feed that runs already.
        """
        feed = self._feeds.get(session)
        warm = feed is not None and session not in self._starting
        if feed is None:
            feed = SessionFeed(session, self._store, self._background, self._counters)
            self._feeds[session] = feed
            self._starting[session] = self._background.start(self._start(feed))
            self._forget_later()
        starting = self._starting.get(session)
        if starting is not None:
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await asyncio.shield(starting)
            except TimeoutError:
                raise StoreUnavailable("Redis does not answer; the attach is tried again later") from None
            if self._feeds.get(session) is not feed:
                raise StoreUnavailable("the session could not be opened; the attach is tried again later")
        feed.add(subscription)
        if warm:
            try:
                await self._reach_end(feed)
            except BaseException:
                self.leave(feed, subscription)
                raise
            feed.add(subscription)
        return feed

    async def _reach_end(self, feed: SessionFeed) -> None:
        """Wait, bounded, until the current log has been fanned out."""
        head = await self._store.open(feed.session)
        if head.series == feed.series:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REACH_END_TIMEOUT_S):
                    await feed.passed(head.position)

    def leave(self, feed: SessionFeed, subscription: Subscription) -> None:
        """Stop delivering to a subscription; a session without watchers is unsubscribed after a while."""
        feed.remove(subscription)
        if feed.idle:
            self._expire_later(feed)

    async def close(self) -> None:
        """End all feeds."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        await self._background.close()
        await self._subscriber.close()
        self._feeds.clear()

    async def start_of(
        self,
        feed: SessionFeed,
        subscription: Subscription,
        resume_from: str | None,
        rewind: RewindCount | RewindTime | None,
    ) -> Start:
        """Where a held subscription begins (sections 5.2 to 5.4). Raises StoreUnavailable."""
        if resume_from is not None:
            return await self._resumed(feed, subscription, resume_from)
        here = subscription.start
        if rewind is not None:
            return await self._rewound(feed, subscription, rewind)
        return Start(Attached(format_position(here, feed.series)))

    async def _resumed(self, feed: SessionFeed, subscription: Subscription, serial: str) -> Start:
        here = subscription.start
        head = await self._store.open(feed.session)
        try:
            after, series, _ = parse_position(serial)
        except InvalidArgument:
            after, series = Position.ZERO, ""
        if series != feed.series or after > max(here, head.position):
            info = error_info(Code.POSITION_UNKNOWN)
            if series == feed.series:
                # The client's position is beyond the end of the log: Redis lost writes.
                info = replace(info, detail=LogRewound.DETAIL)
            return Start(Attached(format_position(here, feed.series), error=info))
        error: ErrorInfo | None = None
        try:
            backlog = await feed.shared_backlog(after, here)
        except ContinuityLost as lost:
            # The rest is still replayed: the position belongs to this session.
            error, after = lost.info, head.floor
            backlog = await feed.shared_backlog(after, here)
        # SYNC carries the current members, and summaries the annotations (section 5.4).
        backlog = [one for one in backlog if not (one.is_presence or one.is_annotation)]
        feed.resume(subscription, after)
        attached = Attached(
            format_position(after, feed.series), resumed=error is None, backlog=bool(backlog), error=error
        )
        return Start(attached, backlog=backlog)

    async def _rewound(
        self, feed: SessionFeed, subscription: Subscription, rewind: RewindCount | RewindTime
    ) -> Start:
        here, variant = subscription.start, subscription.variant
        visible = shown(variant.hidden)
        if isinstance(rewind, RewindCount):
            # What a filter selects is known of the messages as they are now only.
            limit = rewind.count if variant.filter is None else _MAX_REWIND
            query = Query(limit=limit, until=here, align=False, visible=visible)
        else:
            start_ms = now_ms() - rewind.ms
            query = Query(limit=_MAX_REWIND, until=here, start_ms=start_ms, align=False, visible=visible)
        if query.limit == 0 or rewind == RewindCount(0):
            return Start(Attached(format_position(here, feed.series)))
        page = await self._store.history.page(feed.session, query)
        messages = list(filter(variant.passes, page.messages))
        if isinstance(rewind, RewindCount):
            messages = messages[: rewind.count]
        messages.reverse()
        preface = [self._rewound_frame(feed, subscription, message) for message in messages[:-1]]
        if messages:
            # After the last one a resume continues from where the subscription began.
            preface.append(self._rewound_frame(feed, subscription, messages[-1], here))
        first = _before_first(messages, here)
        return Start(Attached(format_position(first, feed.series), backlog=bool(messages)), preface=preface)

    def _rewound_frame(
        self,
        feed: SessionFeed,
        subscription: Subscription,
        message: Message,
        position: Position | None = None,
    ) -> bytes:
        assert message.serial is not None and message.version is not None
        created, _, index = parse_position(message.serial)
        feed.note_seen(subscription, created, index or 0, parse_position(message.version.serial)[0])
        return encode_messages(subscription.variant, position or created, feed.series, [message])

    async def _start(self, feed: SessionFeed) -> None:
        try:
            await self._subscriber.subscribe(
                self._store.keys.channel(feed.session), partial(self.inbox.add, feed)
            )
            await feed.start()
        except TransportError as error:
            logger.warning("session.open_failed session=%s error=%s", feed.session, error)
            # Waiters see its absence.
            self._feeds.pop(feed.session, None)
        finally:
            self._starting.pop(feed.session, None)
        # The requester may be gone.
        self._expire_later(feed)

    def _forget_later(self) -> None:
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().call_later(FORGET_IDLE_S, self._forget_idle)

    async def _renew_unused(self) -> None:
        """Sessions without an entry expire soon: not while one is attached."""
        for feed in list(self._feeds.values()):
            if feed.position != Position.ZERO or feed.session in self._starting:
                continue
            try:
                head = await self._store.open(feed.session)
            except TransportError as error:
                logger.warning("session.renewal_failed session=%s error=%s", feed.session, error)
                return
            if head.series != feed.series:
                feed.compare()

    def _forget_idle(self) -> None:
        self._forgetting = None
        self._background.start(self._renew_unused())
        for feed in self._feeds.values():
            feed.forget_idle()
        if self._feeds:
            self._forget_later()

    def _expire_later(self, feed: SessionFeed) -> None:
        asyncio.get_running_loop().call_later(LINGER_S, self._expire, feed)

    def _expire(self, feed: SessionFeed) -> None:
        if feed.idle and self._feeds.get(feed.session) is feed and feed.session not in self._starting:
            del self._feeds[feed.session]
            feed.closed = True
            self.inbox.forget(feed)
            self._background.start(self._subscriber.unsubscribe(self._store.keys.channel(feed.session)))


def _before_first(messages: list[Message], here: Position) -> Position:
    if not messages or messages[0].serial is None:
        return here
    return parse_position(messages[0].serial)[0].before
