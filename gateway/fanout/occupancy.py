"""Occupancy: publishes local counts; sums those of all gateways (section 14.4)."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

import orjson

from gateway.auth.authenticator import now_ms
from gateway.background import Background
from gateway.fanout.delivery import encode_messages
from gateway.fanout.subscription import Subscription
from selfhost_transport.errors import TransportError
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.occupancy import REMEMBERED_MS, AttachmentCounts, Occupancy, OccupancyStore
from selfhost_transport.wire.actions import Flag, MessageAction
from selfhost_transport.wire.message import Message

logger = logging.getLogger(__name__)

ROUND_S: Final = 0.2
"""Shortest time between two rounds of publishing and reading: changes in between are published together."""
REPEAT_S: Final = REMEMBERED_MS / 3000
"""How often the counts of every session are published anew."""
LOOK_S: Final = 5.0
"""How often a watched occupancy is read without a notification: processes die silently."""
MOST_NAMED: Final = 500
"""Readers of a session that a process names; where there are more, all of them count as absent for pushes."""
EVENT_NAME: Final = "[meta]occupancy"

Listener = Callable[[Occupancy], None]


class OccupancyTracker:
    """Counts the attachments of this process by session, and watches the sums that its clients ask for."""

    def __init__(
        self, store: OccupancyStore, node: str, redis_url: str, *, names_readers: bool = False
    ) -> None:
        self._store = store
        # Who is attached is published, too: pushes are sent to those who are not.
        self._names_readers = names_readers
        self._node = node
        self._subscriber = Subscriber(redis_url, on_reconnect=self._look_at_all)
        self._background = Background("occupancy")
        self._shares: dict[str, AttachmentCounts] = {}
        self._readers: dict[str, Counter[str]] = {}
        # Sessions whose counts are to be published, and sessions whose sum is to be read.
        self._unpublished: set[str] = set()
        self._unread: set[str] = set()
        self._listeners: dict[str, dict[Listener, None]] = {}
        self._last: dict[str, Occupancy] = {}
        self._changed = asyncio.Event()

    def count(
        self, session: str, before: Flag | None, after: Flag | None, client_id: str | None = None
    ) -> None:
        """A subscription has come, changed its modes, or gone; `client_id`: whose it is, None when anonymous."""
        if self._names_readers and client_id is not None:
            self._count_reader(session, client_id, _reads(after) - _reads(before))
        counts = self._shares.get(session, AttachmentCounts()) + _share(before, -1) + _share(after, 1)
        if counts == AttachmentCounts():
            self._shares.pop(session, None)
        else:
            self._shares[session] = counts
        self._unpublished.add(session)
        self._changed.set()

    def _count_reader(self, session: str, client_id: str, change: int) -> None:
        readers = self._readers.setdefault(session, Counter())
        readers[client_id] += change
        if readers[client_id] <= 0:
            del readers[client_id]
        if not readers:
            del self._readers[session]

    def watch(self, session: str, listener: Listener) -> Callable[[], None]:
        """Call the listener with the occupancy, now and at every change. Returns what ends that."""
        listeners = self._listeners.setdefault(session, {})
        if not listeners:
            self._background.start(self._subscribe(session))
        listeners[listener] = None
        if session in self._last:
            listener(self._last[session])
        self._look(session)
        return lambda: self._unwatch(session, listener)

    async def read(self, session: str) -> Occupancy:
        """The occupancy now, including unpublished changes of this process. Raises StoreUnavailable."""
        if session in self._unpublished:
            await self._publish(session)
        return await self._store.read(session)

    async def sessions(self, *, prefix: str, after: str | None, limit: int) -> list[str]:
        """Names of sessions with attachments, in order. Raises StoreUnavailable."""
        await asyncio.gather(*(self._publish(session) for session in list(self._unpublished)))
        return await self._store.sessions(prefix=prefix, after=after, limit=limit)

    async def run(self) -> None:
        """Until cancelled. Redis being away is survived."""
        loop = asyncio.get_running_loop()
        repeat_at, look_at = loop.time() + REPEAT_S, loop.time() + LOOK_S
        while True:
            timeout = max(0.0, min(repeat_at, look_at) - loop.time())
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                if loop.time() >= repeat_at:
                    self._unpublished.update(self._shares)
                    repeat_at = loop.time() + REPEAT_S
                if loop.time() >= look_at:
                    self._look_at_all()
                    look_at = loop.time() + LOOK_S
            await self._round()
            await asyncio.sleep(ROUND_S)  # the pace of the rounds

    def repeat(self) -> None:
        """Redis lost the published counts: publish all of them again, in the next round."""
        self._unpublished.update(self._shares)
        self._look_at_all()

    async def close(self) -> None:
        """End watching. The published counts expire with this process' lease."""
        await self._background.close()
        await self._subscriber.close()

    async def _round(self) -> None:
        self._changed.clear()
        unpublished, unread = list(self._unpublished), list(self._unread)
        self._unread.clear()
        work = [
            *(self._publish(session) for session in unpublished),
            *(self._refresh(session) for session in unread),
        ]
        results = await asyncio.gather(*work, return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        for error in failed:
            if not isinstance(error, TransportError):
                raise error
        if failed:
            logger.warning("occupancy.round_failed sessions=%d error=%s", len(failed), failed[0])
            self._unread.update(unread)

    async def _publish(self, session: str) -> None:
        self._unpublished.discard(session)
        try:
            shares = self._shares.get(session, AttachmentCounts())
            readers = self._readers.get(session, Counter[str]())
            named = readers if self._names_readers and len(readers) <= MOST_NAMED else None
            await self._store.report(session, self._node, shares, named)
        except BaseException:
            self._unpublished.add(session)
            raise

    async def _refresh(self, session: str) -> None:
        occupancy = await self._store.read(session)
        if occupancy == self._last.get(session) or session not in self._listeners:
            return
        self._last[session] = occupancy
        for listener in list(self._listeners.get(session, ())):
            listener(occupancy)

    async def _subscribe(self, session: str) -> None:
        try:
            await self._subscriber.subscribe(self._store.channel(session), lambda _: self._look(session))
        except TransportError as error:
            # It is read from time to time anyway.
            logger.warning("occupancy.subscribe_failed session=%s error=%s", session, error)

    def _look(self, session: str) -> None:
        self._unread.add(session)
        self._changed.set()

    def _look_at_all(self) -> None:
        self._unread.update(self._listeners)
        self._changed.set()

    def _unwatch(self, session: str, listener: Listener) -> None:
        listeners = self._listeners.get(session, {})
        listeners.pop(listener, None)
        if not listeners and self._listeners.pop(session, None) is not None:
            self._last.pop(session, None)
            self._background.start(self._subscriber.unsubscribe(self._store.channel(session)))


class OccupancyEvents:
    """Notifies one subscription. `wanted`: `metrics` for all of them, `metrics.<category>` for one."""

    def __init__(self, subscription: Subscription, wanted: str) -> None:
        self._subscription = subscription
        self._category = wanted.partition(".")[2]
        self._last: dict[str, int] = {}

    def send(self, occupancy: Occupancy) -> None:
        """Send the metrics if they are others than before."""
        metrics = occupancy.metrics()
        if self._category:
            metrics = {name: count for name, count in metrics.items() if name == self._category}
        if metrics == self._last:
            return
        self._last = metrics
        now = now_ms()
        event = Message(
            id=f"occupancy-{now}:0",
            name=EVENT_NAME,
            data=orjson.dumps({"metrics": metrics}).decode(),
            encoding="json",
            timestamp=now,
            action=MessageAction.META,
        )
        reader = self._subscription
        reader.write(encode_messages(reader.variant, reader.position, reader.epoch, [event]))


def _reads(modes: Flag | None) -> int:
    return int(modes is not None and bool(modes & Flag.SUBSCRIBE))


def _share(modes: Flag | None, sign: int) -> AttachmentCounts:
    if modes is None:
        return AttachmentCounts()
    return AttachmentCounts(
        sign,
        sign * bool(modes & Flag.PUBLISH),
        sign * bool(modes & Flag.SUBSCRIBE),
        sign * bool(modes & Flag.PRESENCE),
        sign * bool(modes & Flag.PRESENCE_SUBSCRIBE),
    )
