"""Notifications: a connection of its own, any number of channels, callbacks in order.

Pub/sub does not buffer: after every reconnect the owner is notified, so that it can compare positions and fill from the
log (P7).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import hiredis

from selfhost_transport.errors import StoreUnavailable
from selfhost_transport.redis_io.address_resolver import Fixed, Sentinels
from selfhost_transport.redis_io.cluster import ClusterNodes
from selfhost_transport.redis_io.databases import Database
from selfhost_transport.redis_io.link import Link, OnReply, pack
from selfhost_transport.redis_io.pipeline import FIRST_DELAY_S, LONGEST_DELAY_S
from selfhost_transport.redis_io.refusals import Refusal, as_transport_error, refusal_of
from selfhost_transport.redis_io.switches import Switches

logger = logging.getLogger(__name__)

OnMessage = Callable[[bytes], object]
OnReconnect = Callable[[], None]
OnMissed = Callable[[], None]

PING_INTERVAL_S = 5.0
AGAIN_S = 0.25
"""Until a subscription is tried again that was refused for the moment."""
LOG_AGAIN_S = 60.0
"""While Redis stays away, the log says so once in this time."""


class ReadScope(Protocol):
    """Is open around the callbacks for what one read brought, and may take some of that itself."""

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def hand_out(self, replies: list[Any], at: int, callbacks: dict[bytes, Any], /) -> int:
        """Take replies from index `at` on. Returns the index of the first that is for its callback."""


def pass_on(replies: list[Any], batch: ReadScope, callbacks: dict[bytes, Any], on_reply: OnReply) -> None:
    """Everything that one read brought, in order."""
    with batch:
        at, count = 0, len(replies)
        while (at := batch.hand_out(replies, at, callbacks)) < count:
            on_reply(replies[at])
            at += 1


class Subscriptions:
    """Subscriptions over one connection, to any server where every notification arrives."""

    def __init__(
        self,
        where: Fixed | Sentinels | ClusterNodes,
        on_reconnect: OnReconnect | None,
        timeout_s: float,
        batch: ReadScope | None,
    ) -> None:
        self._batch = batch
        self._where = where
        self._database = Database(self._where.database)
        self._timeout_s = timeout_s
        self._on_reconnect = on_reconnect
        self._link: Link | None = None
        self._switches = Switches(self._where, self._leave) if isinstance(self._where, Sentinels) else None
        self._callbacks: dict[bytes, OnMessage] = {}
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        # Channels whose subscription was lost and is not confirmed again yet.
        self._resuming: set[bytes] = set()
        self._connecting: asyncio.Task[None] | None = None
        self._pinging: asyncio.TimerHandle | None = None
        self._again: asyncio.TimerHandle | None = None
        self._answered = True
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether notifications arrive."""
        return self._link is not None and not self._resuming

    async def subscribe(self, channel: str, callback: OnMessage, missed: OnMissed | None = None) -> None:
        """See `Subscriber.subscribe`; a loss is one of all channels, so `missed` is not called."""
        name = self._database.channel(channel).encode()
        if self._closed:
            raise StoreUnavailable("the subscriber was closed by this process")
        confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._callbacks[name] = callback
        self._confirmed[name] = confirmed
        if self._link is not None:
            self._send("SUBSCRIBE", name)
        else:
            self._connect_soon()
        await confirmed

    async def unsubscribe(self, channel: str) -> None:
        """Stop a channel's callbacks."""
        name = self._database.channel(channel).encode()
        self._callbacks.pop(name, None)
        self._resumed(name)
        if (confirmed := self._confirmed.pop(name, None)) is not None:
            confirmed.cancel()
        self._send("UNSUBSCRIBE", name)

    def _leave(self) -> None:
        if self._link is not None:
            self._link.abort()

    async def close(self) -> None:
        """End all subscriptions and disconnect."""
        self._closed = True
        if self._switches is not None:
            await self._switches.close()
        for timer in (self._pinging, self._again):
            if timer is not None:
                timer.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._link is not None:
            self._link.close()
            self._link = None
        for confirmed in self._confirmed.values():
            confirmed.cancel()

    def _send(self, *command: str | bytes) -> None:
        if self._link is not None:
            self._link.write([pack(command)])

    def _on_replies(self, replies: list[Any]) -> None:
        self._answered = True
        if self._batch is not None:
            pass_on(replies, self._batch, self._callbacks, self._on_reply)

    def _on_reply(self, reply: Any) -> None:
        self._answered = True
        if isinstance(reply, hiredis.ReplyError):
            self._on_refused(str(reply))
        if not isinstance(reply, list) or len(reply) != 3:
            return
        kind, name, payload = reply
        if kind == b"message":
            callback = self._callbacks.get(name)
            if callback is not None:
                callback(payload)
        elif kind == b"subscribe":
            self._on_confirmed(name)

    def _on_refused(self, text: str) -> None:
        """Which channel is meant is not said. Asked again unless no later attempt can succeed."""
        if refusal_of(text) is Refusal.FINAL and self._confirmed:
            logger.error("redis.subscribe_refused address=%s error=%s", self._where, text)
            refused, self._confirmed = self._confirmed, {}
            for name, confirmed in refused.items():
                self._callbacks.pop(name, None)
                if not confirmed.done():
                    confirmed.set_exception(as_transport_error(text))
        if (self._confirmed or self._resuming) and self._again is None:
            self._again = asyncio.get_running_loop().call_later(AGAIN_S, self._subscribe_again)

    def _subscribe_again(self) -> None:
        self._again = None
        if names := {*self._confirmed, *self._resuming}:
            self._send("SUBSCRIBE", *names)

    def _on_confirmed(self, name: bytes) -> None:
        confirmed = self._confirmed.pop(name, None)
        if confirmed is not None and not confirmed.done():
            confirmed.set_result(None)
        self._resumed(name)

    def _resumed(self, name: bytes) -> None:
        """With the last one, confirmed or given up meanwhile, what was missed on the others can be looked for (P7)."""
        if name in self._resuming:
            self._resuming.discard(name)
            if not self._resuming and self._on_reconnect is not None:
                self._on_reconnect()

    def _on_lost(self, error: Exception | None) -> None:
        self._link = None
        if not self._closed:
            logger.warning("redis.subscription_lost address=%s error=%s", self._where, error)
            self._resuming = {name for name in self._callbacks if name not in self._confirmed}
            self._connect_soon()

    def _connect_soon(self) -> None:
        if self._switches is not None:
            self._switches.start()
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.get_running_loop().create_task(self._connect(), name="redis-subscribe")

    async def _connect(self) -> None:
        delay, logged_at = FIRST_DELAY_S, -math.inf
        while self._link is None:
            try:
                address = await self._where.locate()
                self._link = await Link.open(
                    address,
                    self._on_reply,
                    self._on_lost,
                    self._timeout_s,
                    None if self._batch is None else self._on_replies,
                )
            except StoreUnavailable as error:
                # Not for each attempt: what depends on Redis says more, and at its own pace.
                if time.monotonic() - logged_at >= LOG_AGAIN_S:
                    logger.warning("redis.subscribe_failed error=%s", error)
                    logged_at = time.monotonic()
                await asyncio.sleep(delay)  # paces reconnecting while the server is away
                delay = min(delay * 2, LONGEST_DELAY_S)
        if self._callbacks:
            self._send("SUBSCRIBE", *self._callbacks)
        self._answered = True
        self._ping()

    def _ping(self) -> None:
        """Notices a server that is gone without closing its socket."""
        if self._pinging is not None:
            self._pinging.cancel()
        if self._link is None:
            return
        if not self._answered:
            self._link.abort()
            return
        self._answered = False
        self._send("PING")
        self._pinging = asyncio.get_running_loop().call_later(PING_INTERVAL_S, self._ping)
