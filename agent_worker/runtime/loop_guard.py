"""A thread that notices when user code blocks the loop: it says whose, with the stack, and keeps the leases meanwhile.

Code that blocks the loop of a worker stops every turn in it. Nothing but that code can end this, but operators can learn
where it is, and the other turns need not be lost over it as well.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from types import FrameType

from agent_worker.runtime.lease import LeasedTurn, LeaseKeeper
from agent_worker.user_code.containment import code_in
from selfhost_transport.store.stores import Stores

logger = logging.getLogger(__name__)

BEAT_S = 0.1
BLOCKED_S = 0.3
"""A loop that has not turned for this long is reported, at most once in `REPORT_EVERY_S`."""
REPORT_EVERY_S = 5.0
KEEP_S = 60.0
"""For how long the leases of a blocked worker are renewed; then its turns go to another one."""

_FRAMES = 20

Runs = Callable[[], Iterable[LeasedTurn]]
BuildStores = Callable[[], Stores]


class LoopGuard:
    """Watches the loop that it is entered on. `blocked_count` and `blocked_s` add up what it has seen."""

    def __init__(self, build_stores: BuildStores, lease_ms: int, runs: Runs) -> None:
        self._build_stores = build_stores
        self._lease_ms = lease_ms
        self._runs = runs
        self._beat = time.monotonic()
        self._beating: asyncio.TimerHandle | None = None
        self._ended = threading.Event()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="loop-guard", daemon=True)
        # When the loop that was reported last had stopped.
        self._reported = -math.inf
        self.blocked_count = 0
        self.blocked_s = 0.0

    def __enter__(self) -> LoopGuard:
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._tick()
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._beating is not None:
            self._beating.cancel()
        self._ended.set()

    def _tick(self) -> None:
        self._beat = time.monotonic()
        self._beating = self._loop.call_later(BEAT_S, self._tick)

    def _watch(self) -> None:
        """The thread."""
        asked = time.monotonic()
        while not self._ended.wait(BEAT_S):
            now = time.monotonic()
            # Where this thread too was kept waiting, the machine or the whole process stood still.
            stood_still, asked = now - asked > BLOCKED_S, now
            if now - self._beat > BLOCKED_S and not stood_still:
                self._blocked(self._beat)
                asked = time.monotonic()

    def _blocked(self, since: float) -> None:
        self.blocked_count += 1
        if is_due := since - self._reported >= REPORT_EVERY_S:
            self._reported = since
            self._report(since)
        asyncio.run(self._keep_leases(since))
        took = time.monotonic() - since
        self.blocked_s += took
        if is_due:
            logger.warning("worker.loop_runs_again blocked_s=%.1f", took)

    def _report(self, since: float) -> None:
        frame = sys._current_frames().get(self._watched)
        blocked = time.monotonic() - since
        logger.error(
            "worker.loop_blocked %s blocked_s=%.1f turns=%d: blocking or CPU-bound code belongs in a plain "
            "function, which runs in a thread\n%s",
            code_in(frame) or "role=-", blocked, len(list(self._runs())), _stack(frame),
        )  # fmt: skip

    async def _keep_leases(self, since: float) -> None:
        """Renew until the loop runs again, with a connection of this thread's own."""
        stores: Stores | None = None
        try:
            renewed = since
            while self._beat == since and not self._ended.is_set():
                now = time.monotonic()
                if now - since < KEEP_S and now - renewed > self._lease_ms / 3000:
                    stores = stores or self._build_stores()
                    keeper = LeaseKeeper(stores.turns, self._lease_ms, self._runs, only_renew=True)
                    renewed = now if await keeper.renew() else renewed
                await asyncio.sleep(BEAT_S)
        except Exception:
            logger.exception("worker.leases_not_kept")
        finally:
            if stores is not None:
                await stores.close()


def _stack(frame: FrameType | None) -> str:
    return "".join(traceback.format_stack(frame)[-_FRAMES:]) if frame is not None else ""
