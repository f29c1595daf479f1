"""One attempt at one turn, from its lease to its terminal: whatever the agent does, the turn cannot stay open.

Two tasks: the agent's, which an abort cancels, and the one here, which nothing cancels and which writes the
terminal. So an agent that ignores its cancellation blocks no other turn (INT-3, INT-13).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent_worker.agent.agent import Agent, OnSteer
from agent_worker.agent.conversation import Conversation
from agent_worker.agent.steering import Steering
from agent_worker.agent.suspension import Suspended
from agent_worker.agent.turn import AbortCause, Turn
from agent_worker.output.flush_timer import FlushTimer
from agent_worker.output.writer import Hold, TurnWriter
from agent_worker.runtime.cancel_decision import cancel_origin, decide_cancel
from agent_worker.runtime.cancel_note import write_closing_note
from agent_worker.runtime.deadline import TurnLimits, Watch
from agent_worker.runtime.ending import COMPLETED, FAILED, Ending
from agent_worker.runtime.presence import Activity, AgentPresence
from agent_worker.runtime.requeue import Requeue
from agent_worker.runtime.turn_times import TurnTimes
from agent_worker.runtime.turn_trace import TurnTrace
from agent_worker.user_code.containment import Escaped, drop_frames, start
from agent_worker.user_code.errors import GENERIC, AgentError, client_error, described
from agent_worker.user_code.tasks import UserCode
from agent_worker.user_code.threads import Threads
from selfhost_transport.errors import ErrorInfo, LeaseLost, TransportError
from selfhost_transport.logs import Fields, bind_log_fields
from selfhost_transport.redis_io.refusals import RedisFailure
from selfhost_transport.settings_values import CrashRule
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.store.turn_inputs import TurnInputs
from selfhost_transport.store.turn_operations import CreateMessage, WriteOperation
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_request import unpack_context
from selfhost_transport.store.turn_store import Lease, TurnStore
from selfhost_transport.turns import encoder, lifecycle
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.wire.message import Message

logger = logging.getLogger(__name__)

RETRIED = "retried"


@dataclass(frozen=True, slots=True)
class WorkerServices:
    """What every turn of a worker shares. `crash_rule`: that of a session's namespace."""

    turns: TurnStore
    pauses: TurnPauses
    inputs: TurnInputs
    history: HistoryReader
    crash_rule: Callable[[str], CrashRule]
    presence: AgentPresence
    flush_timer: FlushTimer
    threads: Threads
    retry_errors: bool
    times: TurnTimes


class TurnRun:
    """Runs an agent on a lease. `outcome` is how it went: a status, `retried`, or the cause of an abort."""

    def __init__(self, agent: Agent, lease: Lease, bucket: int, hold: Hold, services: WorkerServices) -> None:
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
        self._writer = TurnWriter(services.turns, lease, hold, services.flush_timer, self._refused)
        conversation = Conversation(services.history, lease, context, agent.codec)
        self._ending_of_turn = Ending(services.turns, services.pauses, lease, hold, context, conversation)
        self._requeue = Requeue(services.turns, agent, lease, bucket, hold, services.retry_errors)
        self._steering = Steering(services.pauses, lease, conversation)
        self.turn = Turn(
            lease,
            context,
            conversation,
            self._writer,
            self._steering,
            services.inputs,
            partial(services.presence.show, lease.session, context.agent_client_id, lease.turn_id),
            services.threads,
        )
        self._aborted: asyncio.Future[AbortCause] = asyncio.get_running_loop().create_future()
        # Once the terminal is being written the store decides who wins, not an abort (INT-23).
        self._ending = False
        # The agent's task was cancelled by a steer, not to stop the turn (STE-7).
        self._interrupted = False
        # Tasks beside the agent: asking its hook about a cancel, checking for steers.
        self._asking: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._trace = TurnTrace(lease, context, agent.name)
        self._began = time.monotonic()

    @property
    def key(self) -> tuple[int, str]:
        """What the turn is found by: its bucket and id."""
        return self.bucket, self.lease.turn_id

    def abort(self, cause: AbortCause) -> None:
        """Stop at once: drop the gathered text, refuse further writes, cancel the agent's task."""
        if self._ending or self._aborted.done():
            return
        self.outcome = cause.value
        self.turn.abort_cause = cause
        self.turn.aborted.set()
        self._aborted.set_result(cause)
        self._writer.stop(_stopped(self.lease, cause))
        if self.handler is not None:
            self.handler.cancel()

    def ask(self) -> None:
        """A cancel waits for the decision of the agent's hook."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._decide(), name=f"cancel hook {self.lease.turn_id}")

    def on_input(self) -> None:
        """A steer arrived; an agent with `on_steer="abort_call"` is interrupted (STE-7)."""
        is_idle = self._looking is None or self._looking.done()
        if self.agent.on_steer is OnSteer.ABORT_CALL and is_idle:
            self._looking = asyncio.create_task(self._interrupt(), name=f"steer {self.lease.turn_id}")

    async def run(self, limits: TurnLimits, alone: asyncio.Future[bool] | None = None) -> None:
        """Answer the turn, in as many passes as steers ask for, and end or suspend it.

        `alone`: what to wait for before it begins, done when nothing else runs in the worker (True), or after the
        longest wait (False).
        """
        bind_log_fields(**self._names())
        self._log("turn.started", logging.DEBUG)
        try:
            await self._answer(limits, alone)
        except LeaseLost as lost:
            self.outcome = _how_lost(lost)
        except TransportError as error:
            # The lease runs out by itself, and another attempt follows.
            self.outcome = "abandoned"
            logger.warning("turn.end_failed %s error=%s", self._names(), error)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Not the agent's: a fault here, or in a codec of the application.
            logger.exception("turn.crashed %s error=%s", self._names(), described(error))
            await self._end_plainly()
        finally:
            await self._await_chores()
            lease = self.lease
            await self._services.presence.done(lease.session, self._context.agent_client_id, lease.turn_id)
            self._let_go()
            await self._end_trace()
        self._services.times.ended(
            self.agent.name, self.outcome, time.monotonic() - self._began, self._trace.exemplar
        )
        self._log("turn.finished", logging.INFO)

    async def _answer(self, limits: TurnLimits, alone: asyncio.Future[bool] | None) -> None:
        watch = Watch(limits, lambda: self._writer.written)
        await self._trace.begin(self._suspended_ms)
        self._services.times.taken(self.agent.name, self.lease, self._trace.exemplar)
        if self.agent.presence:
            await self._show(Activity.THINKING)
        self._writer.before_output = self._first_output
        if alone is not None:
            await self._wait_alone(alone)
            watch = Watch(limits, lambda: self._writer.written)
        await self.turn.conversation.choose_codec()
        await self._continue_after_crash()
        with self._trace.current():
            while await self._call_agent(watch):
                self.turn.pass_number += 1

    async def _end_plainly(self) -> None:
        """End the turn with nothing but what cannot fail: open messages are closed by the store."""
        self._ending = True
        self.outcome = FAILED
        last = [
            CreateMessage(self._step_end(StepReason.FAILED)),
            CreateMessage(lifecycle.run_end(self._context, RunReason.ERROR, GENERIC)),
        ]
        try:
            await self._services.turns.end(self.lease, FAILED, last, retry_s=self.hold.retry_s)
        except TransportError as error:
            logger.warning("turn.end_failed %s error=%s", self._names(), error)

    async def hand_back(self) -> None:
        """Give the turn to another worker (a worker that stops); the attempt does not count."""
        self.abort(AbortCause.WORKER_SHUTDOWN)
        await self._requeue.give_up()

    async def _wait_alone(self, alone: asyncio.Future[bool]) -> None:
        either: set[asyncio.Future[Any]] = {alone, self._aborted}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if alone.done() and alone.result():
            await self._services.turns.begin_alone(self.lease)

    def _let_go(self) -> None:
        """Errors hold the frames of the agent, and these its data, until the collector comes by: seldom, and too late.

        What the turn consists of holds itself in circles, which are ended for the same reason.
        """
        if self.turn.last_result is not None:
            drop_frames(self.turn.last_result.error)
        if self.handler is None:
            self._end_circles()
        else:
            self.handler.add_done_callback(let_go)
            self.handler.add_done_callback(self._end_circles)

    def _end_circles(self, handler: asyncio.Task[None] | None = None) -> None:
        self._writer.let_go()
        self.turn.let_go()

    async def _call_agent(self, watch: Watch) -> bool:
        """One pass: call the agent once; whether it must be called again for a steer."""
        if self._aborted.done():
            return False
        self.turn.last_result = None
        self._interrupted = False
        code = UserCode("agent", self.agent.name, self.lease.session, self.lease.turn_id)
        self.handler = start(self.agent.answer(self.turn), code, f"agent {self.lease.turn_id}")
        self.handler.add_done_callback(self._log_errors)
        exceeded = await watch.first_of((self.handler, self._aborted))
        if self._aborted.done():
            return False
        if exceeded is not None:
            self.abort(AbortCause.DEADLINE)
            await self._write_terminal(FAILED, exceeded)
            return False
        # A cancel that is being decided comes first: what was cancelled can no longer become a success (P2).
        if self._asking is not None:
            either: set[asyncio.Future[Any]] = {self._asking, self._aborted}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._aborted.done():
                return False
        return await self._after(self.handler)

    def _log_errors(self, handler: asyncio.Task[None]) -> None:
        """After an abort the agent is not awaited: its errors are logged, except those that report the abort."""
        if not self._aborted.done() or handler.cancelled():
            return
        error = handler.exception()
        if error is not None and not isinstance(error, LeaseLost):
            logger.warning("turn.agent_failed_after_abort %s error=%s", self._names(), described(error))

    async def _after(self, handler: asyncio.Task[None]) -> bool:
        """What follows the agent's return; whether that is another pass."""
        if self._interrupted and handler.cancelled():
            return await self._steering.next_pass() or await self._complete()
        error = _error_of(handler)
        if isinstance(error, Suspended):
            await self._suspend(error)
        elif error is not None:
            await self._fail(error)
        else:
            return await self._complete()
        return False

    async def _complete(self) -> bool:
        """Write the terminal, unless a steer must be answered first: then True (STE-8)."""
        try:
            await self.turn.keep_partial()
            await self._writer.finish_writes(hold=True)
        except LeaseLost:
            raise
        except TransportError as error:
            await self._fail(error)
            return False
        while not await self._write_terminal(COMPLETED, None):
            await self._writer.finish_writes()
            if await self._steering.next_pass():
                return True
        return False

    async def _suspend(self, suspended: Suspended) -> None:
        """Give the turn up until people have answered; it needs no worker for that (TOL-2)."""
        await self._writer.finish_writes()
        self._ending = True
        step_end = CreateMessage(self._step_end(StepReason.COMPLETE))
        waits = await self._ending_of_turn.suspend(suspended.wait, [step_end])
        self.outcome = "suspended" if waits else "resumed"

    async def _continue_after_crash(self) -> None:
        """Give the agent what a lost attempt had written, where it wants to continue from there (REC-8)."""
        rule = self.agent.on_crash or self._services.crash_rule(self.lease.session)
        is_later = not isinstance(self.lease.fence, int) or self.lease.fence > 1
        if self.lease.continued or (rule is CrashRule.CONTINUE and is_later):
            conversation, is_shown = self.turn.conversation, self.lease.continued
            self.turn.continue_after(await conversation.partial_text(), is_shown=is_shown)
            if is_shown and (left := await conversation.left_behind()) is not None:
                await self.turn.take_up(left)

    async def _interrupt(self) -> None:
        """End the present call of the model if a steer waits; what it wrote is kept, and another pass follows."""
        try:
            waits = await self._services.pauses.steered(self.lease)
        except TransportError as error:
            logger.warning("turn.steer_missed %s error=%s", self._names(), error)
            return
        if waits and not self._aborted.done() and self.handler is not None and not self.handler.done():
            self._interrupted = True
            self.handler.cancel()

    async def _decide(self) -> None:
        """Have the agent's hook decide about a cancel, and carry the decision out (CAN-7)."""
        services = self._services
        allowed = await decide_cancel(
            self.agent,
            self.turn,
            self.lease,
            self._context,
            services.pauses,
            services.history,
            services.threads,
        )
        if allowed is None:
            return
        self._log("cancel.allowed" if allowed else "cancel.denied", logging.INFO)
        if allowed:
            self.abort(AbortCause.CANCELLED)
            await write_closing_note(
                services.turns, self.lease, self._context, self.turn.final_note, self.turn.conversation.codec
            )

    async def _first_output(self) -> None:
        self._trace.first_output()
        self._services.times.written(self.agent.name, time.monotonic() - self._began, self._trace.exemplar)
        if self.agent.presence:
            await self._show(Activity.STREAMING)

    async def _suspended_ms(self) -> float | None:
        return await self._services.pauses.suspended_ms(self.lease.session, self.lease.turn_id)

    async def _end_trace(self) -> None:
        if self.outcome == AbortCause.CANCELLED.value:
            turns, history = self._services.turns, self._services.history
            await self._trace.cancelled(lambda: cancel_origin(turns, history, self.lease, self._names()))
        self._trace.end(self.outcome)

    async def _show(self, activity: str) -> None:
        session, turn = self.lease.session, self.lease.turn_id
        await self._services.presence.show(session, self._context.agent_client_id, turn, activity)

    async def _await_chores(self) -> None:
        """Await the tasks beside the agent; the hook's grace bounds the wait."""
        for chore in (self._asking, self._looking):
            if chore is None:
                continue
            try:
                await chore
            except LeaseLost:
                continue  # the turn ended, or its grace was over, before the decision
            except TransportError as error:
                logger.warning("turn.chore_failed %s error=%s", self._names(), error)
            except Exception:
                logger.exception("turn.chore_crashed %s", self._names())

    async def _fail(self, error: BaseException) -> None:
        if isinstance(error, LeaseLost) and self._writer.stopped:
            raise error
        if isinstance(error, RedisFailure) and self._requeue.may_return():
            await self._return(error)
            return
        logger.warning(
            "turn.attempt_failed %s error=%s", self._names(), described(error), exc_info=_trace_of(error)
        )
        if self._requeue.may_retry(error):
            await self._retry()
        else:
            await self._write_terminal(FAILED, client_error(error))

    async def _return(self, error: RedisFailure) -> None:
        """Redis was away for longer than calls wait: not the agent's failure, so the attempt does not count.

        Raises TransportError when the turn cannot be put back either: then its lease runs out.
        """
        logger.warning("turn.returned %s error=%s", self._names(), error)
        self.outcome = RETRIED
        self._ending = True
        await self._requeue.give_up_without_redis()

    async def _retry(self) -> None:
        """Close the failed attempt and put the turn back in the queue, after a pause that grows (TRN-9)."""
        self.outcome = RETRIED
        if not self._writer.stopped:
            await self._writer.close_all(encoder.Create(self._step_end(StepReason.FAILED)))
        await self._requeue.retry(self._aborted)

    async def _write_terminal(self, status: str, error: ErrorInfo | None) -> bool:
        """End the turn in one step. A success is not written while a steer waits: then False."""
        self._ending = True
        step, run = (
            (StepReason.COMPLETE, RunReason.COMPLETE)
            if error is None
            else (StepReason.FAILED, RunReason.ERROR)
        )
        last: list[WriteOperation] = [
            *await self._writer.held(),
            *map(CreateMessage, self._error_chunks(error)),
            CreateMessage(self._step_end(step)),
            CreateMessage(lifecycle.run_end(self._context, run, error)),
        ]
        self._ending = await self._ending_of_turn.end(status, last)
        self.outcome = status
        if self._ending:
            self._writer.forget_held()
        else:
            self._writer.release_held()
        return self._ending

    def _error_chunks(self, error: ErrorInfo | None) -> list[Message]:
        if error is None:
            return []
        result, serial = self.turn.last_result, self.lease.step_start_serial
        message_id = "" if result is None else result.message_id
        return self._ending_of_turn.error_chunks(self._context, error, serial, message_id)

    def _step_end(self, reason: StepReason) -> Message:
        return lifecycle.step_end(self._context, self.lease.step_start_serial, reason)

    def _refused(self, lost: LeaseLost) -> None:
        self.abort(AbortCause.LEASE_LOST)

    def _names(self) -> Fields:
        lease = self.lease
        return Fields(session=lease.session, turn=lease.turn_id, attempt=lease.attempt, agent=self.agent.name)

    def _log(self, event: str, level: int) -> None:
        took_ms = (time.monotonic() - self._began) * 1000
        logger.log(level, "%s %s outcome=%s ms=%.0f", event, self._names(), self.outcome or "-", took_ms)


def let_go(task: asyncio.Task[Any]) -> None:
    """Free what the frames of a task hold that has ended with an error, or was cancelled."""
    try:
        drop_frames(task.exception())
    except asyncio.CancelledError as cancelled:
        drop_frames(cancelled)


def _error_of(handler: asyncio.Task[None]) -> BaseException | None:
    """What the agent raised. Cancelling itself is an error too: only an abort may cancel a turn (P8)."""
    if handler.cancelled():
        return AgentError("the agent cancelled itself; the turn was not cancelled")
    return handler.exception()


def _trace_of(error: BaseException) -> BaseException | None:
    """Errors of the tree explain themselves; others need their traceback in the log."""
    return None if isinstance(error, TransportError) and not isinstance(error, Escaped) else error


def _stopped(lease: Lease, cause: AbortCause) -> LeaseLost:
    return LeaseLost(
        f"turn {lease.turn_id} may no longer be written by this attempt: {cause.value}",
        detail={"turn": lease.turn_id, "session": lease.session, "status": cause.value},
    )


def _how_lost(lost: LeaseLost) -> str:
    return str((lost.info.detail or {}).get("status") or AbortCause.LEASE_LOST.value)
