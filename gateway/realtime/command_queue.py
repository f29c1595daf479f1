"""The order in which one connection's commands reach the store. `CommandOrder` says when they may begin."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway.background import Background
from gateway.commands.commands import Done, Submit
from gateway.commands.executor import Executor
from gateway.realtime.append_coalescer import AppendCoalescer
from gateway.realtime.effects import Command
from selfhost_transport.errors import ErrorInfo, ServiceError, TransportError
from selfhost_transport.wire.frame import AckResult

logger = logging.getLogger(__name__)


class CommandQueue:
    """Starts commands in order without waiting for each other's round trip.

    Calls that leave in order arrive in order, because they share one connection to Redis. A command that reads
    before it writes waits for those before it, and those after it wait for it.

    Appends to one message are joined within the connection's window before they start (`window_ms`, 0 for none). How many
    are in flight is bounded by the replies that the connection is owed: the socket is not read while there are many.
    """

    __slots__ = (
        "_background",
        "_coalescer",
        "_committed",
        "_executor",
        "_refused",
        "_running",
        "_wait_for_entries",
        "_waiting",
    )

    def __init__(
        self,
        executor: Executor,
        background: Background,
        wait_for_entries: Callable[[Done], Awaitable[None]],
        committed: Callable[[int, Done], None],
        refused: Callable[[int, ErrorInfo], None],
        *,
        window_ms: int = 0,
    ) -> None:
        self._executor = executor
        self._background = background
        self._wait_for_entries = wait_for_entries
        self._committed = committed
        self._refused = refused
        # Both are there while something is in them.
        self._running: set[asyncio.Task[None]] | None = None
        self._waiting: deque[Command] | None = None
        self._coalescer = AppendCoalescer(window_ms, self._start)

    def add(self, command: Command) -> None:
        """Begin a command, or keep it: for its window, or behind one that reads first."""
        self._coalescer.add(command)

    def close(self) -> None:
        """Begin what is kept for its window; nothing is from now on."""
        self._coalescer.close()

    def free(self) -> None:
        """After everything has ended: break the circle of the queue and what joins its appends."""
        del self._coalescer

    def _start(self, command: Command) -> None:
        if self._waiting is not None:
            self._waiting.append(command)
        elif self._executor.needs_turn(command.operation):
            self._waiting = deque((command,))
            self._background.start(self._work(self._waiting))
        else:
            self._launch(command)

    def _launch(self, command: Command) -> None:
        task = self._background.start(self._run(command))
        if self._running is None:
            self._running = set()
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._running is not None:
            self._running.discard(task)
            self._running = self._running or None

    async def _work(self, waiting: deque[Command]) -> None:
        while waiting:
            command = waiting.popleft()
            if self._executor.needs_turn(command.operation):
                await asyncio.gather(*(self._running or ()), return_exceptions=True)
                if isinstance(command.operation, Submit):
                    await self._begin_send(command, command.operation)
                else:
                    await self._run(command)
            else:
                self._launch(command)
        self._waiting = None

    async def _begin_send(self, command: Command, send: Submit) -> None:
        """Read what a send needs, and start it without waiting for its answer: what follows need not wait either."""
        try:
            ready = await self._executor.read_for(send)
        except TransportError as error:
            self._refuse(command, error.info)
        except Exception:
            logger.exception("gateway.commit_failed")
            self._refuse(command, ServiceError("internal error; try again").info)
        else:
            self._launch(replace(command, operation=ready))

    async def _run(self, command: Command) -> None:
        try:
            done = await self._executor.run(command.operation)
        except TransportError as error:
            self._refuse(command, error.info)
        except Exception:
            logger.exception("gateway.commit_failed")
            self._refuse(command, ServiceError("internal error; try again").info)
        else:
            if done.reply_after is not None:
                await self._wait_for_entries(done)
            if command.others:
                tickets = (command.ticket, *command.others)
                for ticket, serial in zip(tickets, done.result.serials, strict=True):
                    self._committed(ticket, replace(done, result=AckResult([serial])))
            else:
                self._committed(command.ticket, done)
                self._coalescer.answered(command.ticket)

    def _refuse(self, command: Command, error: ErrorInfo) -> None:
        for ticket in (command.ticket, *command.others):
            self._refused(ticket, error)
        self._coalescer.answered(command.ticket)
