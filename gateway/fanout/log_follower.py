"""Follows one session's log: its notifications in order, without gaps, handed on to the session's feed.

Notifications carry their predecessor's position. Where it is not the last one seen, the gap is filled from the log;
if the log does not reach back far enough, every subscription gets a discontinuity (P7).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from gateway.background import Background
from gateway.fanout.backlog import BATCH
from gateway.fanout.feed import Counters, SessionFeed
from gateway.fanout.open_messages import unpack_or_skip
from selfhost_transport.errors import ContinuityLost, SessionErased, TransportError
from selfhost_transport.store.session_store import Head, SessionStore
from selfhost_transport.wire.serial import Position

logger = logging.getLogger(__name__)

MAX_PENDING: Final = 4096
"""Notifications that are kept while the log is read."""
LOOKS: Final = 4
"""How often the log is read for an entry that was announced, before the announcement is taken for a foreign one."""
FIRST_LOOK_S: Final = 0.05
LONGEST_LOOK_S: Final = 2.0


class LogFollower:
    """Keeps `feed` at the end of its session's log."""

    __slots__ = (
        "_counters",
        "_dropped",
        "_kept",
        "_looked_at",
        "_on_erased",
        "_read_until",
        "_store",
        "_tasks",
        "closed",
        "feed",
        "refused",
        "session",
    )

    def __init__(
        self,
        session: str,
        store: SessionStore,
        tasks: Background,
        counters: Counters,
        on_erased: Callable[[LogFollower], None] = lambda _: None,
    ) -> None:
        self.session = session
        self._on_erased = on_erased
        self.feed = SessionFeed(session, store, tasks, counters)
        # Set once it is no longer needed.
        self.closed = False
        self._store = store
        self._tasks = tasks
        self._counters = counters
        # How much was read from the log: notifications of it may still be in flight.
        self._read_until = Position.ZERO
        # Where it stood when it was last asked whether anything comes.
        self._looked_at = Position.ZERO
        self._pending = []
        # Some of them were dropped: the log must be read once more.
        self._dropped = False

    async def start(self) -> None:
        """Take the present end of the log as position. The Redis subscription must be confirmed already."""
        self._reset(await self._store.open(self.session))
        if self._dropped or not self._drain_pending():
            self._tasks.start(self._fill())

    def notify(self, payload: bytes) -> None:
        """A notification: `<position> <predecessor> <entry>`."""
        if self._pending is not None:
            self._keep_pending(payload)
            return
        if not self._take(payload):
            self._pending = [payload]
            self._tasks.start(self._fill())

    @property
    def _pending(self) -> list[bytes] | None:
        """Notifications that arrived while the session is opened or a gap is filled."""
        return self._kept

    @_pending.setter
    def _pending(self, pending: list[bytes] | None) -> None:
        self._kept = pending
        self.feed.is_following = pending is None
        # Also afterwards: a path that was laid out meanwhile has no lane.
        self.feed.give_up_path()

    @property
    def waits(self) -> bool:
        """Whether notifications that were read wait for their turn."""
        return self.feed.way is not None and self.feed.way.waiting

    @waits.setter
    def waits(self, waits: bool) -> None:
        if self.feed.way is not None:
            self.feed.way.waiting = waits

    @property
    def reads(self) -> bool:
        """Whether the log is being read, and notifications wait for that."""
        return self._pending is not None

    def compare(self) -> None:
        """Notifications may have been lost: read the log from the last one on."""
        if self._pending is None:
            self._pending = []
            self._tasks.start(self._fill())

    def is_quiet(self) -> bool:
        """Whether nothing has come since the last time this was asked."""
        quiet = self._pending is None and self.feed.position == self._looked_at
        self._looked_at = self.feed.position
        return quiet

    def differs(self, head: Position) -> bool:
        """Whether the newest entry of the log, read a moment ago, is another one than the newest one seen here."""
        position = self.feed.position
        return self._pending is None and position == self._looked_at and head != position

    def jump(self) -> None:
        """More notifications arrive than can be fanned out: continue from the end of the log.

        Each subscription reads the entries in between itself, conflated if there are many.
        """
        if self._pending is not None:
            self._pending.clear()
            self._dropped = True
            return
        self._pending = []
        self._counters.jumped()
        self._tasks.start(self._jump())

    def _keep_pending(self, payload: bytes) -> None:
        assert self._pending is not None
        self._pending.append(payload)
        if len(self._pending) > MAX_PENDING:
            # They are in the log, which is read once more.
            self._pending.clear()
            self._dropped = True

    async def _jump(self) -> None:
        try:
            head = await self._store.open(self.session)
        except TransportError as error:
            logger.warning("session.jump_failed session=%s error=%s", self.session, error)
            await self._fill()
            return
        if head.epoch == self.feed.epoch:
            behind = self.feed.position
            self._reset(head)
            self.feed.skipped(behind)
        # What came meanwhile; and a log that began anew is noticed there.
        await self._fill()

    def _take(self, payload: bytes) -> bool:
        """Fan an entry out if it is the next one. False: something is missing before it."""
        if self.feed.append(payload):
            return True
        name, previous, entry = payload.split(b" ", 2)
        if previous != self.feed.last:
            # Read from the log already, if it is no newer than that was; else something is missing, or Redis went back.
            return Position.of_name(name) <= self._read_until
        position = Position.of_name(name)
        self.feed.advance(position, unpack_or_skip(position, entry), name)
        self._counters.fanned_out(position.ms)
        return True

    async def _fill(self) -> None:
        """Read missing entries from the log, then continue with those that arrived meanwhile.

        It is repeated at growing intervals, until there are no watchers.
        """
        self._counters.gap()
        delay, looks = FIRST_LOOK_S, 0
        while not self.closed:
            try:
                missing = await self._fill_once()
            except SessionErased as error:
                logger.info("session.erased session=%s", self.session)
                self._on_erased(self)
                self.feed.end(error.info)
                return
            except TransportError as error:
                logger.warning("session.fill_failed session=%s error=%s", self.session, error)
            else:
                if not missing:
                    if self._pending is None:
                        return
                    delay, looks = FIRST_LOOK_S, 0
                    continue
                looks += 1
                if looks >= LOOKS:
                    self._skip_missing(missing)
                    delay, looks = FIRST_LOOK_S, 0
            await asyncio.sleep(delay)  # paces asking while Redis is away, or has not what it announced
            delay = min(delay * 2, LONGEST_LOOK_S)

    async def _fill_once(self) -> int:
        """How many announced entries the log does not have, although it was read after they were announced.

        While 0 is the answer and notifications are pending, those came meanwhile.
        """
        self._dropped = False
        announced = len(self._pending or ())
        try:
            await self._read_missing()
        except ContinuityLost as error:
            logger.warning(
                "session.continuity_lost session=%s position=%s", self.session, self.feed.position.stream_id
            )
            self._reset(await self._store.open(self.session))
            self.feed.lost(error.info)
        if self._dropped:
            return 0
        arrived = len(self._pending or ())
        if self._drain_pending():
            return 0
        return max(0, announced - (arrived - len(self._pending or ())))

    def _skip_missing(self, count: int) -> None:
        """Announced entries are missing from the log: Redis lost them, or another deployment announced them."""
        if self._pending is not None:
            logger.warning("session.announced_entries_missing session=%s entries=%d", self.session, count)
            del self._pending[:count]

    async def _read_missing(self) -> None:
        feed = self.feed
        while True:
            entries = await self._store.read_after(self.session, feed.position, BATCH, epoch=feed.epoch)
            for entry in entries:
                feed.advance(entry.position, entry)
            if len(entries) < BATCH:
                self._read_until = feed.position
                return

    def _drain_pending(self) -> bool:
        pending, self._pending = self._pending or [], None
        for index, payload in enumerate(pending):
            if not self._take(payload):
                self._pending = pending[index:]
                return False
        return True

    def _reset(self, head: Head) -> None:
        self._read_until = head.position
        self.feed.reset(head)
