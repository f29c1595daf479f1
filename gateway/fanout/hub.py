"""The sessions this process watches: one Redis subscription each, however many readers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial

from gateway.background import Background
from gateway.fanout.feed import Counters, SessionFeed
from gateway.fanout.inbox import Inbox
from gateway.fanout.log_follower import LogFollower
from gateway.fanout.start import SubscriptionStart, start_of
from gateway.fanout.subscription import Subscription
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.accelerator import Way
from selfhost_transport.errors import (
    InvalidArgument,
    SessionErased,
    StoreUnavailable,
    StoreUnsuitable,
    TransportError,
)
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.channel import RewindCount, RewindTime
from selfhost_transport.wire.serial import Position

logger = logging.getLogger(__name__)

LINGER_S = 5.0
"""How long a session without watchers stays subscribed: clients that reconnect find it warm."""
START_TIMEOUT_S = 8.0
FORGET_IDLE_S = 30.0
"""How often sessions forget the messages that nothing was appended to since the time before."""
REACH_END_TIMEOUT_S = 1.0


class SessionHub:
    """Sessions are followed from the first watcher on until some time after the last."""

    def __init__(self, store: SessionStore, redis_url: str, counters: Counters) -> None:
        self._store = store
        # Where sockets keep what several notifications that arrived together have for them.
        self.write_batch = WriteBatch()
        self.inbox = Inbox(self.write_batch, counters)
        self._subscriber = Subscriber(redis_url, on_reconnect=self.reconnected, batch=self.inbox)
        self._counters = counters
        self._background = Background("session-feed")
        self._followers: dict[str, LogFollower] = {}
        # Each gives the error that it failed with, or None.
        self._starting: dict[str, asyncio.Task[TransportError | None]] = {}
        self._forgetting: asyncio.TimerHandle | None = None
        self._to_look_at: list[LogFollower] = []

    @property
    def sessions(self) -> int:
        """Sessions that are subscribed."""
        return len(self._followers)

    @property
    def connected(self) -> bool:
        """Whether notifications arrive; without a session to watch there is no connection to lose."""
        return not self._followers or self._subscriber.connected

    def follower(self, session: str) -> LogFollower | None:
        """What follows the log of a session that is watched."""
        return self._followers.get(session)

    def feed(self, session: str) -> SessionFeed | None:
        """The watchers of a session that is watched."""
        follower = self._followers.get(session)
        return None if follower is None else follower.feed

    # Watchers

    async def join(self, session: str, subscription: Subscription) -> SessionFeed:
        """Hold a session's entries for a subscription, from an end of the log read now. Raises StoreUnavailable.

        Notifications of what was acknowledged just before may still be in flight to a session that is followed already.
        """
        warm = session in self._followers and session not in self._starting
        feed = await self._follow(session)
        feed.add(subscription)
        if warm:
            try:
                await self._reach_end(feed)
            except BaseException:
                self.leave(feed, subscription)
                raise
            feed.add(subscription)
        return feed

    def leave(self, feed: SessionFeed, subscription: Subscription) -> None:
        """Stop delivering to a subscription; a session without watchers is unsubscribed after a while."""
        feed.remove(subscription)
        self._left(feed)

    @contextlib.asynccontextmanager
    async def watch(self, session: str) -> AsyncIterator[SessionFeed]:
        """Have a session followed without receiving its entries, to wait for positions. Raises StoreUnavailable."""
        feed = await self._follow(session)
        feed.watches += 1
        try:
            yield feed
        finally:
            feed.watches -= 1
            self._left(feed)

    async def start_of(
        self,
        feed: SessionFeed,
        subscription: Subscription,
        resume_from: str | None,
        rewind: RewindCount | RewindTime | None,
    ) -> SubscriptionStart:
        """Where a held subscription begins (sections 5.2 to 5.4). Raises StoreUnavailable."""
        return await start_of(self._store, feed, subscription, resume_from, rewind)

    async def _reach_end(self, feed: SessionFeed) -> None:
        """Wait, bounded, until the current log has been fanned out."""
        head = await self._store.open(feed.session)
        if head.epoch == feed.epoch:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REACH_END_TIMEOUT_S):
                    await feed.until_fanned_out(head.position)

    # Following

    async def _follow(self, session: str) -> SessionFeed:
        follower = self._followers.get(session)
        if follower is None:
            follower = LogFollower(
                session, self._store, self._background, self._counters, on_erased=self._stop_following
            )
            follower.feed.write_batch = self.write_batch
            self._followers[session] = follower
            self._starting[session] = self._background.start(self._start(follower))
            self._forget_later()
        starting = self._starting.get(session)
        if starting is not None:
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    failure = await asyncio.shield(starting)
            except TimeoutError:
                raise StoreUnavailable("Redis does not answer; the attach is tried again later") from None
            if failure is not None:
                raise failure
        return follower.feed

    async def _start(self, follower: LogFollower) -> TransportError | None:
        way = follower.feed.way = Way(partial(self.inbox.add, follower))
        try:
            await self._subscriber.subscribe(
                self._store.keys.channel(follower.session),
                way,
                partial(self._missed, follower),
            )
            try:
                await follower.start()
            except InvalidArgument as error:
                # Read from Redis, not from a client.
                raise StoreUnsuitable(f"the session's keys hold something else: {error}") from error
        except TransportError as error:
            logger.warning("session.open_failed session=%s error=%s", follower.session, error)
            self._followers.pop(follower.session, None)
            return error
        except BaseException:
            # Nothing follows the session: the next watcher begins again.
            self._followers.pop(follower.session, None)
            raise
        finally:
            self._starting.pop(follower.session, None)
        # The requester may be gone.
        self._expire_later(follower)
        return None

    def reconnected(self) -> None:
        """The subscriptions were away for a while: every session is compared with its log (P7)."""
        for session, follower in self._followers.items():
            if session not in self._starting:
                follower.compare()

    def _missed(self, follower: LogFollower) -> None:
        """One subscription was away for a while: its slot moved, or that slot's server was lost."""
        if self._followers.get(follower.session) is follower and follower.session not in self._starting:
            follower.compare()

    async def look_at_quiet(self, most: int) -> int:
        """Compare quiet sessions, of which nothing came since the last look, with Redis: `most` at a time, in turn.

        Keys may vanish under a connection that stays up: then nothing is ever announced again. Returns how many sessions
        were found to be behind or ahead of their log, and are compared with it now. Raises StoreUnavailable.
        """
        if self.inbox.size:
            # A session that is behind is known to be, and misses no notification.
            return 0
        if not self._to_look_at:
            self._to_look_at = list(self._followers.values())
        chosen, self._to_look_at = self._to_look_at[:most], self._to_look_at[most:]
        quiet = [follower for follower in chosen if not follower.closed and follower.is_quiet()]
        heads = await asyncio.gather(*(self._store.head(follower.session) for follower in quiet))
        differing = [follower for follower, head in zip(quiet, heads, strict=True) if follower.differs(head)]
        for follower in differing:
            follower.compare()
        return len(differing)

    # What is no longer needed

    def _left(self, feed: SessionFeed) -> None:
        follower = self._followers.get(feed.session)
        if feed.idle and follower is not None and follower.feed is feed:
            self._expire_later(follower)

    def _expire_later(self, follower: LogFollower) -> None:
        asyncio.get_running_loop().call_later(LINGER_S, self._expire, follower)

    def _expire(self, follower: LogFollower) -> None:
        session = follower.session
        if follower.feed.idle and session not in self._starting:
            self._stop_following(follower)

    def _stop_following(self, follower: LogFollower) -> None:
        session = follower.session
        if self._followers.get(session) is not follower:
            return
        del self._followers[session]
        follower.closed = True
        follower.feed.give_up_path()
        self.inbox.forget(follower)
        self._background.start(self._subscriber.unsubscribe(self._store.keys.channel(session)))

    def _forget_later(self) -> None:
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().call_later(FORGET_IDLE_S, self._forget_idle)

    def _forget_idle(self) -> None:
        self._forgetting = None
        self._background.start(self._renew_unused())
        for follower in self._followers.values():
            follower.feed.forget_idle()
        if self._followers:
            self._forget_later()

    async def _renew_unused(self) -> None:
        """Sessions without an entry expire soon: not while one is attached."""
        for follower in list(self._followers.values()):
            feed = follower.feed
            if feed.position != Position.ZERO or feed.session in self._starting:
                continue
            try:
                head = await self._store.open(feed.session)
            except SessionErased:
                follower.compare()
                continue
            except TransportError as error:
                logger.warning("session.renewal_failed session=%s error=%s", feed.session, error)
                return
            if head.epoch != feed.epoch:
                follower.compare()

    async def close(self) -> None:
        """End following all sessions."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        await self._background.close()
        await self._subscriber.close()
        self._followers.clear()
