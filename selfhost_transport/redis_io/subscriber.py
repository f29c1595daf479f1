"""Notifications: one connection of its own per process, any number of channels, callbacks in order.

Pub/sub forgets: after every reconnect the owner of a channel is told, so that it can compare positions and
fill from the log (P7).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import redis.asyncio
from redis import exceptions

logger = logging.getLogger(__name__)

OnMessage = Callable[[bytes], None]
OnReconnect = Callable[[], None]


class Subscriber:
    """Subscriptions of one process. Callbacks run in the reading task: they must be quick and never raise.

    `on_reconnect` is called once the subscriptions are back after a lost connection.
    """

    def __init__(self, url: str, *, on_reconnect: OnReconnect | None = None) -> None:
        self._redis = redis.asyncio.Redis.from_url(url, socket_keepalive=True, retry=None, protocol=2)
        self._pubsub = self._redis.pubsub(ignore_subscribe_messages=False)
        self._callbacks: dict[bytes, OnMessage] = {}
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        self._on_reconnect = on_reconnect
        self._reader: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._connected = False
        # Channels whose subscription was lost and is not confirmed again yet.
        self._resuming: set[bytes] = set()

    @property
    def connected(self) -> bool:
        """Whether notifications arrive at the moment."""
        return self._connected

    async def subscribe(self, channel: str, callback: OnMessage) -> None:
        """Returns once Redis has confirmed: whatever is published from then on arrives."""
        name = channel.encode()
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._callbacks[name] = callback
        self._confirmed[name] = confirmed
        async with self._lock:
            with contextlib.suppress(exceptions.RedisError, OSError):
                await self._pubsub.subscribe(name)
            if self._reader is None:
                self._reader = asyncio.create_task(self._read(), name="redis-subscriber")
        await confirmed

    async def unsubscribe(self, channel: str) -> None:
        """Stop a channel's callbacks."""
        name = channel.encode()
        self._callbacks.pop(name, None)
        self._confirmed.pop(name, None)
        async with self._lock:
            with contextlib.suppress(exceptions.RedisError, OSError):
                await self._pubsub.unsubscribe(name)

    async def close(self) -> None:
        """End the reader and disconnect."""
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await self._pubsub.aclose()
        await self._redis.aclose()

    async def _read(self) -> None:
        delay = 0.05
        while True:
            try:
                await self._receive()
                delay = 0.05
            except (exceptions.RedisError, OSError) as error:
                self._connected = False
                logger.warning("redis.subscription_lost error=%s", error)
                await asyncio.sleep(delay)  # paces reconnecting while the server is away
                delay = min(delay * 2, 1.0)
                await self._reconnect()

    async def _receive(self) -> None:
        while True:
            message = await self._pubsub.parse_response(block=True)
            kind, name, payload = message[0], message[1], message[2]
            if kind == b"message":
                callback = self._callbacks.get(name)
                if callback is not None:
                    callback(payload)
            elif kind == b"subscribe":
                self._connected = True
                self._confirm_resumed(name)
                confirmed = self._confirmed.pop(name, None)
                if confirmed is not None and not confirmed.done():
                    confirmed.set_result(None)

    async def _reconnect(self) -> None:
        async with self._lock:
            with contextlib.suppress(exceptions.RedisError, OSError):
                await self._pubsub.aclose()
                self._pubsub = self._redis.pubsub(ignore_subscribe_messages=False)
                if self._callbacks:
                    await self._pubsub.subscribe(*self._callbacks)
                self._resuming = set(self._callbacks)

    def _confirm_resumed(self, name: bytes) -> None:
        if name in self._resuming:
            self._resuming.discard(name)
            if not self._resuming and self._on_reconnect is not None:
                self._on_reconnect()
