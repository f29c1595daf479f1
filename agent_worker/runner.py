"""One attempt at one turn, from its lease to its terminal: whatever the agent does, the turn cannot stay open.

Two tasks: the agent's, which an abort cancels, and the one here, which nothing cancels and which writes the
terminal. So an agent that ignores its cancellation holds up nobody (INT-3, INT-13).
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from agent_worker.agents import Agent
from agent_worker.conversation import Conversation
from agent_worker.errors import AgentError, deadline_error, told_to_clients, wants_another_attempt
from agent_worker.rollup import Rollup
from agent_worker.turn import AbortCause, Turn
from agent_worker.writer import Hold, TurnWriter
from selfhost_transport.errors import ErrorInfo, LeaseLost, StoreFull, TransportError
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.store.turn_request import unpack_context
from selfhost_transport.store.turn_store import Create, Lease, TurnStore
from selfhost_transport.turns import encoder, lifecycle
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.wire.message import Message

logger = logging.getLogger(__name__)

COMPLETED, FAILED = "completed", "failed"
RETRIED = "retried"

_FULL_PAUSE_S = 0.2
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Services:
    """What every turn of a worker shares."""

    turns: TurnStore
    history: HistoryReader
    rollup: Rollup
    retry_errors: bool


class TurnRun:
    """Runs an agent on a lease. `outcome` is how it went: a status, `retried`, or the cause of an abort."""

    def __init__(self, agent: Agent, lease: Lease, bucket: int, hold: Hold, services: Services) -> None:
        context = unpack_context(lease.context)
        self.agent = agent
        self.lease = lease
        self.bucket = bucket
        self.hold = hold
        self.outcome = ""
        # The agent's task; it may outlive `run` when it ignores its cancellation.
        self.handler: asyncio.Task[None] | None = None
        self._context = context
        self._services = services
        self._writer = TurnWriter(services.turns, lease, hold, services.rollup, self._refused)
        self.turn = Turn(lease, context, Conversation(services.history, lease, context), self._writer)
        self._aborted: asyncio.Future[AbortCause] = asyncio.get_running_loop().create_future()
        # Once the terminal is being written the store decides who wins, not an abort (INT-23).
        self._ending = False
        self._began = time.monotonic()

    @property
    def key(self) -> tuple[int, str]:
        """What the turn is found by: its bucket and id."""
        return self.bucket, self.lease.turn_id

    def abort(self, cause: AbortCause) -> None:
        """Stop at once: drop what is gathered, refuse further writes, cancel the agent's task."""
        if self._ending or self._aborted.done():
            return
        self.outcome = cause.value
        self.turn.abort_cause = cause
        self.turn.aborted.set()
        self._aborted.set_result(cause)
        self._writer.stop(_stopped(self.lease, cause))
        if self.handler is not None:
            self.handler.cancel()

    async def run(self, deadline_s: float) -> None:
        """Answer and end the turn; `deadline_s` 0: it may take as long as it likes (TRN-23)."""
        self.handler = asyncio.create_task(self.agent.answer(self.turn), name=f"agent {self.lease.turn_id}")
        self._log("turn.started", logging.DEBUG)
        # Not `wait_for`: a handler that ignores its cancellation must not be waited for.
        either: set[asyncio.Future[Any]] = {self.handler, self._aborted}
        await asyncio.wait(either, timeout=deadline_s or None, return_when=asyncio.FIRST_COMPLETED)
        try:
            await self._end(deadline_s)
        except LeaseLost as lost:
            self.outcome = _how_lost(lost)
        except TransportError as error:
            # The lease runs out by itself, and another attempt follows.
            self.outcome = "abandoned"
            logger.warning("turn.end_failed %s error=%s", self._names(), error)
        self._log("turn.finished", logging.INFO)

    async def hand_back(self) -> None:
        """Give the turn to another worker (a worker that stops); the attempt does not count."""
        self.abort(AbortCause.WORKER_SHUTDOWN)
        await self._services.turns.hand_back(self.bucket, self.lease)

    async def _end(self, deadline_s: float) -> None:
        if self._aborted.done():
            return
        assert self.handler is not None
        if not self.handler.done():
            self.abort(AbortCause.DEADLINE)
            await self._write_terminal(FAILED, deadline_error(deadline_s))
            return
        error = _error_of(self.handler)
        if error is None:
            error = await self._complete()
        if error is not None:
            await self._fail(error)

    async def _complete(self) -> TransportError | None:
        """Write the terminal; the error, if the output could not be written whole."""
        try:
            await self._writer.settle()
        except LeaseLost:
            raise
        except TransportError as error:
            return error
        await self._write_terminal(COMPLETED, None)
        return None

    async def _fail(self, error: BaseException) -> None:
        if isinstance(error, LeaseLost):
            raise error
        logger.warning("turn.attempt_failed %s error=%r", self._names(), error, exc_info=_trace_of(error))
        if self._may_retry(error):
            await self._retry()
        else:
            await self._write_terminal(FAILED, told_to_clients(error))

    def _may_retry(self, error: BaseException) -> bool:
        default = self.agent.retry_errors
        wanted = wants_another_attempt(error, self._services.retry_errors if default is None else default)
        return wanted and self.lease.attempt < self.lease.max_attempts

    async def _retry(self) -> None:
        """Close the failed attempt and put the turn back in the queue, after a pause that grows (TRN-9)."""
        self.outcome = RETRIED
        if not self._writer.stopped:
            await self._writer.close_all(encoder.Create(self._step_end(StepReason.FAILED)))
        pause = min(_FIRST_PAUSE_S * 2 ** (self.lease.attempt - 1), _LONGEST_PAUSE_S)
        await asyncio.wait({self._aborted}, timeout=pause)
        if not self._aborted.done():
            await self._services.turns.hand_back(self.bucket, self.lease, counted=True)

    async def _write_terminal(self, status: str, error: ErrorInfo | None) -> None:
        """End the turn in one step; while Redis is full, try again for as long as the lease lasts (OPS-9)."""
        self._ending = True
        step, run = (
            (StepReason.COMPLETE, RunReason.COMPLETE)
            if error is None
            else (StepReason.FAILED, RunReason.ERROR)
        )
        last = [Create(self._step_end(step)), Create(lifecycle.run_end(self._context, run, error))]
        while True:
            try:
                await self._services.turns.end(self.lease, status, last, retry_s=self.hold.remaining_s)
                self.outcome = status
                return
            except StoreFull:
                if not self.hold.remaining_s:
                    raise
                await asyncio.sleep(_FULL_PAUSE_S)  # nothing announces that memory was freed

    def _step_end(self, reason: StepReason) -> Message:
        return lifecycle.step_end(self._context, self.lease.step_start_serial, reason)

    def _refused(self, lost: LeaseLost) -> None:
        self.abort(AbortCause.LEASE_LOST)

    def _names(self) -> str:
        lease = self.lease
        return f"session={lease.session} turn={lease.turn_id} attempt={lease.attempt} agent={self.agent.name}"

    def _log(self, event: str, level: int) -> None:
        took_ms = (time.monotonic() - self._began) * 1000
        logger.log(level, "%s %s outcome=%s ms=%.0f", event, self._names(), self.outcome or "-", took_ms)


def _error_of(handler: asyncio.Task[None]) -> BaseException | None:
    """What the agent raised. Cancelling itself is an error too: only an abort may cancel a turn (P8)."""
    if handler.cancelled():
        return AgentError("the agent cancelled itself; the turn was not cancelled")
    return handler.exception()


def _trace_of(error: BaseException) -> BaseException | None:
    """Errors of the tree explain themselves; others need their traceback in the log."""
    return None if isinstance(error, TransportError) else error


def _stopped(lease: Lease, cause: AbortCause) -> LeaseLost:
    return LeaseLost(
        f"turn {lease.turn_id} may no longer be written by this attempt: {cause.value}",
        detail={"turn": lease.turn_id, "session": lease.session, "status": cause.value},
    )


def _how_lost(lost: LeaseLost) -> str:
    return str((lost.info.detail or {}).get("status") or AbortCause.LEASE_LOST.value)
