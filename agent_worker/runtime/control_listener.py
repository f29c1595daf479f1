"""Notifications for a process without a queue: cancels of its turns, entries of sessions it awaits, new turns."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from agent_worker.runtime.control_channel import ControlChannel
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.names import part

OnStop = Callable[[int, str, str], None]
"""Called with the bucket, the turn and the fence of a holder that has to stop."""


class ControlListener:
    """Subscriptions of one process, made when they are first needed."""

    def __init__(self, url: str, keys: Keyspace, holder: str, on_stop: OnStop) -> None:
        self._keys = keys
        self._on_stop = on_stop
        self._control = ControlChannel(holder, self._pushed, self._arrived)
        self._subscriber = Subscriber(url, on_reconnect=self._wake_all)
        # The bucket's control channel is subscribed once it is done.
        self._buckets: dict[int, asyncio.Task[None]] = {}
        # Waiters, by channel.
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._subscribed: set[str] = set()
        # Waiters for turns of an agent.
        self._arrivals: dict[str, set[asyncio.Event]] = defaultdict(set)
        # Of a channel one subscription is made, or given up, at a time.
        self._subscribing = asyncio.Lock()

    @property
    def waiting(self) -> int:
        """How many calls wait for something to happen in a session."""
        return sum(map(len, self._waiting.values()))

    async def subscribe(self, bucket: int) -> None:
        """Returns once cancels of the bucket's turns are subscribed to."""
        if bucket not in self._buckets:
            self._buckets[bucket] = asyncio.create_task(
                self._control.subscribe(self._subscriber, self._keys.base(bucket), bucket)
            )
        await asyncio.shield(self._buckets[bucket])

    @asynccontextmanager
    async def changes(self, session: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set by every entry of a session, and whenever entries may have been missed."""
        channel, changed = self._keys.channel(session), asyncio.Event()
        waiting = self._waiting[channel]
        waiting.add(changed)
        try:
            async with self._subscribing:
                if channel not in self._subscribed:
                    await self._subscriber.subscribe(channel, lambda entry: self._wake(channel))
                    self._subscribed.add(channel)
            yield changed
        finally:
            waiting.discard(changed)
            async with self._subscribing:
                if not waiting:
                    self._waiting.pop(channel, None)
                    self._subscribed.discard(channel)
                    await self._subscriber.unsubscribe(channel)

    @asynccontextmanager
    async def arrivals(self, agent: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set whenever a turn comes to wait for an agent, or that may have been missed."""
        arrived = asyncio.Event()
        self._arrivals[agent].add(arrived)
        try:
            buckets = range(self._keys.buckets)
            await asyncio.gather(
                *map(self.subscribe, buckets), *(self._subscribe_to_arrivals(one, agent) for one in buckets)
            )
            yield arrived
        finally:
            self._arrivals[agent].discard(arrived)

    async def _subscribe_to_arrivals(self, bucket: int, agent: str) -> None:
        # Where those who hear a call cannot all be counted, every call is for all processes, and announces the turn too.
        channel = f"{self._keys.base(bucket)}came:{part(agent)}"
        await self._subscriber.subscribe(channel, lambda item: self._arrived(bucket, agent))

    async def close(self) -> None:
        """Unsubscribe from everything."""
        for subscribing in self._buckets.values():
            subscribing.cancel()
        await asyncio.gather(*self._buckets.values(), return_exceptions=True)
        await self._subscriber.close()

    def _pushed(self, push: str, bucket: int, turn: str, fence: str) -> None:
        if push == "stop":
            self._on_stop(bucket, turn, fence)

    def _arrived(self, bucket: int, agent: str, to_few: bool = False) -> None:
        _set(self._arrivals.get(agent, ()))

    def _wake(self, channel: str) -> None:
        _set(self._waiting.get(channel, ()))

    def _wake_all(self) -> None:
        for channel in self._waiting:
            self._wake(channel)
        for arrivals in self._arrivals.values():
            _set(arrivals)


def _set(events: Iterable[asyncio.Event]) -> None:
    for event in events:
        event.set()
