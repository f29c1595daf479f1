"""Keeping leases, and collecting those that others lost (DUR-8 to DUR-11)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from agent_worker.agent.turn import AbortCause
from agent_worker.output.writer import Hold
from selfhost_transport.errors import TransportError
from selfhost_transport.store.duties import Duties
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_store import Lease, TurnStore

logger = logging.getLogger(__name__)

RENEWALS_PER_CALL = 200
"""Leases in one script call: keeps it within a few milliseconds (P9)."""
REAP_EVERY_S = 1.0
LONGEST_GRACE_MS = 3_000
"""For how long leases that expired while Redis stood still are left to their owners."""
_FAILED_PAUSE_S = 0.5
_DUTY_MS = 700
"""Shorter than a worker's pause between two sweeps: one worker alone never leaves one out."""


class LeasedTurn(Protocol):
    """A turn in this process's hands: an attempt of a worker, or a turn that is worked on step by step."""

    @property
    def bucket(self) -> int:
        """The bucket that its session is in."""

    @property
    def lease(self) -> Lease:
        """The lease that is renewed."""

    @property
    def hold(self) -> Hold:
        """Until when the lease certainly holds; the keeper extends it."""

    def abort(self, cause: AbortCause) -> None:
        """Stop at once."""


class LeaseKeeper:
    """Renews the leases of a worker's turns at a third of their length.

    A failed renewal is repeated until Redis has said what became of the lease: one that has run out while Redis did not
    answer is very often still there, and what would be written without it is refused.
    """

    def __init__(
        self,
        store: TurnStore,
        lease_ms: int,
        runs: Callable[[], Iterable[LeasedTurn]],
        *,
        only_renew: bool = False,
    ) -> None:
        # `only_renew`: do not abort lost turns. For a keeper in another thread: a turn is aborted in its own thread
        # only, where its next write is refused.
        self._store = store
        self._lease_ms = lease_ms
        self._runs = runs
        self._only_renew = only_renew

    async def keep(self) -> None:
        """Renew until cancelled."""
        interval = self._lease_ms / 3000
        while True:
            renewed = await self.renew()
            # After a failure: the sooner it is tried again, the more of the lease is left.
            await asyncio.sleep(interval if renewed else min(interval / 4, _FAILED_PAUSE_S))

    async def renew(self) -> bool:
        """Renew every lease once; False if some could not be."""
        by_bucket: dict[int, list[LeasedTurn]] = defaultdict(list)
        for run in self._runs():
            by_bucket[run.bucket].append(run)
        calls = [
            self._renew(bucket, runs[start : start + RENEWALS_PER_CALL])
            for bucket, runs in by_bucket.items()
            for start in range(0, len(runs), RENEWALS_PER_CALL)
        ]
        return all(await asyncio.gather(*calls))

    async def _renew(self, bucket: int, runs: Sequence[LeasedTurn]) -> bool:
        asked = time.monotonic()
        try:
            lost = set(await self._store.renew(bucket, [run.lease for run in runs], self._lease_ms))
        except TransportError as error:
            logger.warning("lease.renew_failed bucket=%d turns=%d error=%s", bucket, len(runs), error)
            return False
        for run in runs:
            if run.lease.turn_id not in lost:
                run.hold.until = asked + self._lease_ms / 1000
            elif not self._only_renew:
                run.abort(AbortCause.LEASE_LOST)
        return True


class Reaper:
    """Looks for expired leases about every second; one of all workers does."""

    def __init__(self, store: TurnStore, pauses: TurnPauses, duties: Duties, lease_ms: int) -> None:
        self._grace_ms = min(lease_ms, LONGEST_GRACE_MS)
        self._store = store
        self._pauses = pauses
        self._duties = duties

    async def watch(self) -> None:
        """Reap until cancelled."""
        while True:
            await asyncio.sleep(REAP_EVERY_S * random.uniform(0.8, 1.2))
            try:
                if await self._duties.falls_to_me("reap", _DUTY_MS):
                    await self.sweep()
            except TransportError as error:
                logger.warning("lease.sweep_failed error=%s", error)

    async def sweep(self) -> int:
        """Deal with everything that has expired by now; the number of turns. Raises StoreUnavailable."""
        found = 0
        dirty: Sequence[int] = await self._duties.buckets_with("leases", "deadlines")
        while dirty:
            replies = await asyncio.gather(*map(self._reap, dirty))
            dirty = [bucket for bucket, reaped in zip(dirty, replies, strict=True) if reaped]
            found += len(dirty)
        return found

    async def _reap(self, bucket: int) -> bool:
        """One expired lease, and one turn with an expired deadline (an undecided cancel, a long suspension)."""
        try:
            reaped, due = await asyncio.gather(
                self._store.reap(bucket, self._grace_ms), self._pauses.expire(bucket)
            )
        except TransportError as error:
            logger.warning("lease.reap_failed bucket=%d error=%s", bucket, error)
            return False
        if reaped is not None:
            turn, session, what = reaped
            logger.warning("lease.expired session=%s turn=%s then=%s", session, turn, what)
        if due is not None:
            turn, session, what = due
            logger.info("turn.due session=%s turn=%s then=%s", session, turn, what)
        return reaped is not None or due is not None
