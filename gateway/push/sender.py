"""Delivers pushes: to those who are not attached any more, once, again after a failure, given up in the end."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import httpx
import orjson

from gateway.auth.revocations import Revocations
from gateway.metrics import Metrics
from gateway.push.message import PushMessages, is_push_service, origin_of
from gateway.push.validity import is_valid
from selfhost_transport.errors import TransportError
from selfhost_transport.settings import Settings
from selfhost_transport.store.occupancy import OccupancyStore
from selfhost_transport.store.push import PushDelivery, PushStore

logger = logging.getLogger(__name__)

AT_ONCE: Final = 64
"""Requests of one gateway that are under way."""
_LOOK_S: Final = 1.0
_LEASE_MARGIN_MS: Final = 5_000
_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 5_000, 600_000
_LONGEST_ADVICE_MS: Final = 3_600_000
_GONE: Final = frozenset({404, 410})
# A service that is overloaded or broken; any other refusal would be the same again.
_LATER: Final = frozenset({408, 425, 429})
_FAILURES_BEFORE_PAUSE: Final = 5
_MOST_READ: Final = 4_096


class _Failed(Exception):
    """A push service did not take a message; `later`: it may take it another time, `after_ms`: when it says so itself."""

    def __init__(self, reason: str, *, later: bool, after_ms: int = 0) -> None:
        super().__init__(reason)
        self.later = later
        self.after_ms = after_ms


class _Gone(Exception):
    """The browser has no such subscription any more."""


class _HideEndpoints(logging.Filter):
    """Leaves the addresses of browsers out of httpx' lines, of which an application may write those of `info`."""

    def __init__(self, services: Sequence[str]) -> None:
        super().__init__()
        self._services = services

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record on."""
        if isinstance(record.args, tuple):
            record.args = tuple(self._shown(one) for one in record.args)
        return True

    def _shown(self, value: object) -> object:
        is_secret = isinstance(value, httpx.URL) and is_push_service(str(value), self._services)
        return origin_of(str(value)) if is_secret else value


class PushSender:
    """The deliveries of one gateway; several share the queue."""

    def __init__(
        self,
        settings: Settings,
        store: PushStore,
        occupancy: OccupancyStore,
        revocations: Revocations,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._push = settings.push
        self._store = store
        self._occupancy = occupancy
        self._revocations = revocations
        self._metrics = metrics
        self._messages = PushMessages(settings.push)
        self._running: set[asyncio.Task[None]] = set()
        # By origin: failures in a row, and until when nothing is posted there (the loop's time).
        self._failures: defaultdict[str, int] = defaultdict(int)
        self._paused: dict[str, float] = {}
        self._look = asyncio.Event()

    async def deliver_all(self) -> None:
        """Until cancelled; Redis being away is survived."""
        timeout = httpx.Timeout(self._push.timeout_ms / 1000)
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        log, hide = logging.getLogger("httpx"), _HideEndpoints(self._push.services)
        log.addFilter(hide)
        async with httpx.AsyncClient(timeout=timeout, limits=limits, follow_redirects=False) as http:
            try:
                while True:
                    await self._start(http)
                    await self._wait()
            finally:
                log.removeFilter(hide)
                for task in self._running:
                    task.cancel()
                await asyncio.gather(*self._running, return_exceptions=True)

    async def remove_revoked(self) -> None:
        """Forget the subscriptions made with credentials that are good no more. Raises StoreUnavailable."""
        for person in await self._store.people():
            found = await self._store.subscriptions(person)
            ended = [one.subscription_id for one in found if not self._is_valid(one.source)]
            if ended:
                await self._store.unsubscribe(person, ended)
                logger.info("push.revoked client=%s subscriptions=%d", person, len(ended))

    def _is_valid(self, source: Any) -> bool:
        return is_valid(source, self._settings, self._revocations)

    async def _start(self, http: httpx.AsyncClient) -> None:
        free = AT_ONCE - len(self._running)
        if free == 0:
            return
        try:
            taken = await self._store.take(free, self._push.timeout_ms + _LEASE_MARGIN_MS)
        except TransportError as error:
            logger.warning("push.store_failed error=%s", error)
            return
        for delivery in taken:
            task = asyncio.create_task(self._deliver(http, delivery), name=f"push {delivery.delivery_id}")
            self._running.add(task)
            task.add_done_callback(self._ended)
        if len(taken) == free:
            self._look.set()

    async def _wait(self) -> None:
        """Until it is time to look again: more may be due when one is delivered."""
        try:
            async with asyncio.timeout(_LOOK_S):
                await self._look.wait()
        except TimeoutError:
            return
        self._look.clear()
        if len(self._running) >= AT_ONCE:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if len(self._running) == AT_ONCE:
            self._look.set()
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Its lease ends, and it is tried again.
            logger.error("push.failed error=%r", error, exc_info=error)

    async def _deliver(self, http: httpx.AsyncClient, delivery: PushDelivery) -> None:
        try:
            outcome = await self._try(http, delivery)
        except TransportError as error:
            logger.warning("push.store_failed error=%s", error)
            return
        self._metrics.pushes.labels(outcome).inc()

    async def _try(self, http: httpx.AsyncClient, delivery: PushDelivery) -> str:
        """Try one; what became of it, as the metric names it. Raises StoreUnavailable."""
        to = delivery.subscription
        ours = to.server_key == self._push.public_key and is_push_service(to.endpoint, self._push.services)
        if not ours or not self._is_valid(to.source):
            return await self._forget(delivery)
        content = orjson.loads(delivery.content)
        session = content["session"]
        if session is not None and await self._occupancy.has(session, delivery.person):
            await self._store.done(delivery)
            return "attached"
        origin = origin_of(to.endpoint)
        if (pause_ms := self._pause_ms(origin)) > 0:
            await self._store.retry(delivery, pause_ms, counted=False)
            return "retried"
        try:
            await self._post(http, delivery, topic=session or content["turnId"])
        except _Gone:
            return await self._forget(delivery)
        except _Failed as error:
            self._count_failure(origin, counts=error.later)
            return await self._failed(delivery, error)
        self._failures.pop(origin, None)
        await self._store.done(delivery)
        return "delivered"

    async def _post(self, http: httpx.AsyncClient, delivery: PushDelivery, topic: str) -> None:
        """Raises _Gone, _Failed."""
        try:
            request = self._messages.request(delivery.subscription, delivery.content, topic)
        except ValueError as error:
            raise _Failed("the browser's keys are not valid", later=False) from error
        try:
            async with (
                asyncio.timeout(self._push.timeout_ms / 1000),
                http.stream("POST", request.url, content=request.body, headers=request.headers) as response,
            ):
                _check(response)
                if int(response.headers.get("content-length", _MOST_READ + 1)) <= _MOST_READ:
                    # The connection can be used again.
                    await response.aread()
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _Failed("no answer in time", later=True) from error
        except (httpx.HTTPError, ValueError) as error:
            # What httpx says may hold the address.
            raise _Failed(type(error).__name__, later=True) from error

    async def _forget(self, delivery: PushDelivery) -> str:
        await self._store.unsubscribe(delivery.person, [delivery.subscription.subscription_id])
        await self._store.done(delivery)
        return "gone"

    async def _failed(self, delivery: PushDelivery, error: _Failed) -> str:
        if error.later and delivery.attempts < self._push.max_attempts:
            pause_ms = min(_FIRST_PAUSE_MS * 2 ** min(delivery.attempts - 1, 10), _LONGEST_PAUSE_MS)
            spread_ms = int(pause_ms * random.uniform(0.8, 1.2))
            await self._store.retry(delivery, max(spread_ms, error.after_ms))
            return "retried"
        await self._store.bury(delivery, str(error))
        logger.error(
            "push.given_up client=%s service=%s subscription=%s error=%s", delivery.person,
            origin_of(delivery.subscription.endpoint), delivery.subscription.subscription_id, error,
        )  # fmt: skip
        return "given_up"

    def _pause_ms(self, origin: str) -> int:
        """How long nothing is posted to a push service that does not answer."""
        until = self._paused.get(origin, 0.0)
        return max(0, int((until - asyncio.get_running_loop().time()) * 1000))

    def _count_failure(self, origin: str, *, counts: bool) -> None:
        if not counts:
            return
        self._failures[origin] += 1
        beyond = self._failures[origin] - _FAILURES_BEFORE_PAUSE
        if beyond >= 0:
            pause_s = min(_FIRST_PAUSE_MS * 2 ** min(beyond, 4), 60_000) / 1000
            self._paused[origin] = asyncio.get_running_loop().time() + pause_s


def _check(response: httpx.Response) -> None:
    """Raises _Gone, _Failed unless a push service has taken a message; a redirect is a refusal."""
    status = response.status_code
    if status in _GONE:
        raise _Gone
    if not response.is_success:
        later = status in _LATER or status >= 500
        advice = response.headers.get("retry-after", "")
        after_ms = (
            min(int(advice) * 1000, _LONGEST_ADVICE_MS) if advice.isascii() and advice.isdecimal() else 0
        )
        raise _Failed(f"status {status}", later=later, after_ms=after_ms)
