"""The order in which one connection's operations reach the store, and are answered."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway.background import Background
from gateway.effects import Commit
from gateway.executor import Executor
from gateway.operations import Done
from selfhost_transport.errors import ErrorInfo, ServiceError, TransportError
from selfhost_transport.wire.frame import AckResult

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 512
"""Operations of one connection on their way; its socket is not read while there are more."""


class Commits:
    """Starts operations in order without waiting for each other's round trip.

    Calls that leave in order arrive in order, because they share one connection to Redis. An operation that reads
    before it writes waits for those before it, and those after it wait for it.
    """

    def __init__(
        self,
        executor: Executor,
        background: Background,
        settle: Callable[[Done], Awaitable[None]],
        committed: Callable[[int, Done], None],
        refused: Callable[[int, ErrorInfo], None],
    ) -> None:
        self._executor = executor
        self._background = background
        self._settle = settle
        self._committed = committed
        self._refused = refused
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: deque[Commit] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    def add(self, commit: Commit) -> None:
        """Begin an operation, or line it up behind one that reads first."""
        if self._worker is None and not self._executor.needs_turn(commit.operation):
            self._launch(commit)
        else:
            self._waiting.append(commit)
            if self._worker is None:
                self._worker = self._background.start(self._work())
        if len(self._running) + len(self._waiting) >= MAX_IN_FLIGHT:
            self._room.clear()

    async def room(self) -> None:
        """Returns once few enough operations are on their way."""
        await self._room.wait()

    def _launch(self, commit: Commit) -> None:
        task = self._background.start(self._run(commit))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if len(self._running) + len(self._waiting) < MAX_IN_FLIGHT:
            self._room.set()

    async def _work(self) -> None:
        while self._waiting:
            commit = self._waiting.popleft()
            if self._executor.needs_turn(commit.operation):
                await asyncio.gather(*self._running, return_exceptions=True)
                await self._run(commit)
            else:
                self._launch(commit)
        self._worker = None
        self._room.set()

    async def _run(self, commit: Commit) -> None:
        try:
            done = await self._executor.run(commit.operation)
        except TransportError as error:
            self._refuse(commit, error.info)
        except Exception:
            logger.exception("gateway.commit_failed")
            self._refuse(commit, ServiceError("internal error; try again").info)
        else:
            if done.settled_at is not None:
                await self._settle(done)
            if not commit.others:
                self._committed(commit.ticket, done)
                return
            tickets = (commit.ticket, *commit.others)
            for ticket, serial in zip(tickets, done.result.serials, strict=True):
                self._committed(ticket, replace(done, result=AckResult([serial])))

    def _refuse(self, commit: Commit, error: ErrorInfo) -> None:
        for ticket in (commit.ticket, *commit.others):
            self._refused(ticket, error)
