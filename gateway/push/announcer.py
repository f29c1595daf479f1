"""Turns that ended or wait for people, from their queue to the deliveries of those who sent them."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any, Final

from gateway.push.message import content_of
from selfhost_transport.errors import TransportError
from selfhost_transport.exporter import TurnExporter
from selfhost_transport.settings import Settings
from selfhost_transport.store.ended_turns import Ended
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.store.push import PushStore
from selfhost_transport.turns.status import TurnStatus

logger = logging.getLogger(__name__)

EXPORTER: Final = "push.people"
_LEASE_S: Final = 5.0
"""An event is queued in milliseconds, and once, also by two gateways: when one dies, the others need not wait long."""
_LIMIT: Final = 10_000
_AGAIN_S: Final = 2.0
_MS: Final = timedelta(milliseconds=1)


class PushAnnouncer(TurnExporter):
    """Queues deliveries: each event once, by whichever gateway has it. Nothing slow is waited for here."""

    def __init__(self, settings: Settings, store: PushStore) -> None:
        super().__init__(settings, name=EXPORTER, lease_s=_LEASE_S, limit=_LIMIT)
        self._push = settings.push
        self._store = store

    async def queue_all(self) -> None:
        """Until cancelled; Redis being away is survived."""
        while True:
            try:
                await self.run(self._queue)  # type: ignore[arg-type]
            except TransportError as error:
                logger.warning("push.store_failed error=%s", error)
            await asyncio.sleep(_AGAIN_S)  # paces trying while Redis is away

    async def _prepared(self, history: HistoryReader, ended: Ended) -> Any:
        return ended

    async def _queue(self, ended: Ended) -> None:
        if not ended.owner or not _is_news(ended):
            return
        wait_ms, keep_ms = self._push.wait_ms, self._push.ttl // _MS
        await self._store.queue(
            ended.event_id, ended.owner, content_of(ended), wait_ms=wait_ms, keep_ms=keep_ms
        )


def _is_news(ended: Ended) -> bool:
    """Whether a person wants to hear of it: not of a cancel."""
    if ended.event == "ended":
        return ended.status in (TurnStatus.COMPLETED, TurnStatus.FAILED)
    return ended.event == "suspended"
