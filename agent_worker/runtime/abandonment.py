"""Abandoned turns: cancelled after a time without readers, in namespaces with that setting (PRE-10)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from selfhost_transport.errors import TransportError
from selfhost_transport.store.occupancy import OccupancyStore
from selfhost_transport.store.turn_store import CancelFilter, Lease, Scope, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.wire.message import Message

logger = logging.getLogger(__name__)

CHECKS: Final = 6
"""Checks per limit of a session: a cancel comes at most a sixth of the limit late."""
LONGEST_PAUSE_S: Final = 5.0


class Running(Protocol):
    """A turn at work."""

    lease: Lease


class Abandonment:
    """Checks who is attached to the sessions of running turns, and cancels the turns of abandoned ones.

    `limit_of`: seconds a session may be without subscribers; 0: no limit, and its turns cost nothing here. A gateway
    that died is not counted once its report has expired, some 90 s later.
    """

    def __init__(
        self,
        turns: TurnStore,
        occupancy: OccupancyStore,
        limit_of: Callable[[str], float],
        running: Callable[[], Iterable[Running]],
    ) -> None:
        self._turns = turns
        self._occupancy = occupancy
        self._limit_of = limit_of
        self._running = running
        # Since when a session has no reader, on the monotonic clock.
        self._unwatched_since: dict[str, float] = {}

    async def watch(self, shortest_s: float) -> None:
        """Check until cancelled. `shortest_s`: the shortest configured limit."""
        while True:
            await asyncio.sleep(min(LONGEST_PAUSE_S, shortest_s / CHECKS))
            try:
                await self.check(time.monotonic())
            except TransportError as error:
                # Unknown occupancy is no reason to cancel anything.
                self._unwatched_since.clear()
                logger.warning("turn.watchers_unknown error=%s", error)

    async def check(self, now: float) -> None:
        """Check once."""
        by_session: dict[str, list[Lease]] = {}
        for turn in self._running():
            by_session.setdefault(turn.lease.session, []).append(turn.lease)
        limits = {session: self._limit_of(session) for session in by_session}
        limited = {session: limit for session, limit in limits.items() if limit}
        self._unwatched_since = {s: since for s, since in self._unwatched_since.items() if s in limited}
        for session, limit in limited.items():
            if (await self._occupancy.read(session)).counts.subscribers:
                self._unwatched_since.pop(session, None)
            elif now - self._unwatched_since.setdefault(session, now) >= limit:
                await self._cancel(session, by_session[session], limit)

    async def _cancel(self, session: str, leases: Iterable[Lease], limit: float) -> None:
        for lease in leases:
            message = Message(
                name=h.AI_CANCEL,
                extras=h.make_extras({h.EVENT_ID: inputs.new_id(), h.RUN_ID: lease.turn_id}),
            )
            await self._turns.cancels.cancel(session, CancelFilter(Scope.TURN, lease.turn_id), message)
            logger.info("turn.abandoned session=%s turn=%s unwatched_s=%g", session, lease.turn_id, limit)
