"""A turn that a process works on in steps, and may hand to another one: for workflow engines (DUR-1 to DUR-17).

The process holds the turn by a lease, as a worker does, and every write is fenced (P2, P3, P6). Nothing is ended
from outside except by a cancel, or by the end of the adoption window.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType

from agent_worker.agent.conversation import Conversation
from agent_worker.agent.steering import Steering
from agent_worker.agent.suspension import Suspended, Wait
from agent_worker.agent.turn import AbortCause, Turn
from agent_worker.output.flush_timer import FlushTimer
from agent_worker.output.writer import Hold, TurnWriter
from agent_worker.runtime.ending import CANCELLED, COMPLETED, FAILED, Ending
from agent_worker.runtime.presence import AgentPresence
from agent_worker.user_code.errors import client_error
from agent_worker.user_code.threads import Threads
from agent_worker.workflow.step import Step, context_of, step_messages
from selfhost_transport.errors import (
    ErrorInfo,
    LeaseLost,
    SteerWaiting,
    StepOpen,
    TransportError,
    TurnSuspended,
)
from selfhost_transport.logs import Fields
from selfhost_transport.store.history import HistoryReader
from selfhost_transport.store.turn_inputs import TurnInputs
from selfhost_transport.store.turn_operations import CreateMessage
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_request import unpack_context
from selfhost_transport.store.turn_steps import Holding, LastStep, StepOutcome, TurnSteps
from selfhost_transport.store.turn_store import TurnStore
from selfhost_transport.turns import lifecycle
from selfhost_transport.turns.context import step_id_for
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.wire.message import Message

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeldServices:
    """What every turn held by a process shares. `released` is called with a turn that is no longer held."""

    turns: TurnStore
    steps: TurnSteps
    pauses: TurnPauses
    inputs: TurnInputs
    history: HistoryReader
    presence: AgentPresence
    flush_timer: FlushTimer
    threads: Threads
    window_ms: int
    released: Callable[[HeldTurn], None]


class HeldTurn:
    """A started turn in this process's hands, until it is completed, failed, cancelled or detached.

    As a context manager it is detached at the end of the block, unless it has ended by then. Every method raises
    LeaseLost once the turn is no longer held: also when it was cancelled, which stops the step that runs.
    """

    def __init__(
        self, holding: Holding, bucket: int, hold: Hold, services: HeldServices, *, adopted: bool
    ) -> None:
        self.lease = holding.lease
        self.bucket = bucket
        self.hold = hold
        self.context = unpack_context(holding.lease.context)
        # Set when the turn was taken from this process; `abort_cause` then says why.
        self.aborted = asyncio.Event()
        self.abort_cause: AbortCause | None = None
        self._services = services
        self._last = holding.last_step
        # What a first step must be compared with: that of the process before this one.
        self._adopted: LastStep | None = holding.last_step if adopted else None
        self._conversation = Conversation(services.history, self.lease, self.context)
        self._steering = Steering(services.pauses, self.lease, self._conversation)
        self._ending = Ending(
            services.turns, services.pauses, self.lease, hold, self.context, self._conversation
        )
        # The id of the step that is open, or being opened, and the step itself once it is.
        self._opening: str | None = None
        self._step: Step | None = None
        # Steps that were completed before the next one, as far as is known here.
        self._steps_done = int(adopted and holding.last_step.outcome is StepOutcome.COMPLETE)
        # Whether a step may have answered what `steered` reported, and whether that still must be asked: an earlier
        # process may have taken a message and answered nothing.
        self._answered = False
        self._may_be_steered = adopted
        self._released: LeaseLost | None = None

    def __repr__(self) -> str:
        why = f" ({self.abort_cause})" if self.abort_cause else ""
        state = "held" if self.held else f"no longer held{why}"
        return f"<HeldTurn {self.turn_id} of {self.session!r} {state}>"

    @property
    def turn_id(self) -> str:
        """The id of the turn."""
        return self.lease.turn_id

    @property
    def session(self) -> str:
        """The session's name."""
        return self.lease.session

    @property
    def owner(self) -> str | None:
        """The verified client id of the turn's owner; None: anonymous."""
        return self.context.owner_client_id

    @property
    def held(self) -> bool:
        """Whether it is still in this process's hands."""
        return self._released is None

    async def __aenter__(self) -> HeldTurn:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.give_up()

    @asynccontextmanager
    async def step(self, step_id: str | None = None) -> AsyncIterator[Turn]:
        """A step: the writes with the handle inside the block, as one unit that can be retried.

        The output of an id that was used before replaces the earlier output; a fresh id appends.
        Without an id, a step that failed is tried again, else a new one begins. What the block or its last
        source raises fails the step and is raised. Raises StepOpen, LeaseLost; TurnSuspended when the block suspended.
        """
        step = await self._open(step_id)
        try:
            with step.scope:
                yield step.turn
                step.check()
            await step.finish_writes()
            await self._close(step, StepReason.COMPLETE)
        except Suspended as suspended:
            await self._suspend(step, suspended.wait)
            raise TurnSuspended(
                f"turn {self.turn_id} waits for people; create it again once they have answered"
            ) from None
        except BaseException as error:
            await self._fail_step(step, error)
            raise
        finally:
            self._opening = self._step = None
            step.close()
            await self._services.presence.done(self.session, self.context.agent_client_id, self.turn_id)

    async def steered(self) -> bool:
        """Whether a steer is unanswered; it is the next step's `text()`."""
        self._check_free()
        if self._answered:
            await self._steering.next_pass()
        else:
            await self._steering.look()
        self._answered = self._may_be_steered = False
        return bool(self._steering.ids)

    async def complete(self) -> None:
        """End the turn. Raises StepOpen, and SteerWaiting while a message sent into it is not answered."""
        self._check_free()
        is_steered = self._may_be_steered and await self.steered()
        end = lifecycle.run_end(self.context, RunReason.COMPLETE)
        if is_steered or not await self._end(COMPLETED, [end]):
            raise SteerWaiting(
                f"a message was sent into turn {self.turn_id} that no step has answered; see `steered`"
            )

    async def fail(self, error: Exception) -> None:
        """End the turn with `error`, in the form for clients. Raises StepOpen."""
        self._check_free()
        shown = client_error(error)
        last = [
            *self._error_chunks(shown),
            lifecycle.run_end(self.context, RunReason.ERROR, shown),
        ]
        await self._end(FAILED, last)

    async def cancel(self) -> None:
        """End the turn as cancelled and stop its running step."""
        self._check_held()
        last = [lifecycle.run_end(self.context, RunReason.CANCELLED)]
        if self._step is not None:
            last.insert(0, _step_end(self._step, StepReason.CANCELLED))
            self._step.abort(AbortCause.CANCELLED, self._lost(AbortCause.CANCELLED))
        await self._end(CANCELLED, last)

    async def detach(self) -> None:
        """Give the turn up for another process to adopt; writes nothing. Raises StepOpen."""
        self._check_free()
        await self._detach()

    async def give_up(self) -> None:
        """Detach even during a step, which then fails. If that is impossible, the lease expires."""
        if self._released is not None:
            return
        try:
            if self._step is not None:
                self._step.abort(AbortCause.WORKER_SHUTDOWN, self._lost(AbortCause.WORKER_SHUTDOWN))
                await self._close(self._step, StepReason.FAILED)
            await self._detach()
        except TransportError as error:
            logger.warning("turn.detach_failed %s error=%s", self._names(), error)
            self._release(LeaseLost(f"turn {self.turn_id} is no longer held by this process"))

    def abort(self, cause: AbortCause) -> None:
        """The turn was cancelled, or the lease is lost: stop the step that runs."""
        if self._released is not None:
            return
        lost = self._lost(cause)
        self.abort_cause = cause
        self.aborted.set()
        self._release(lost)
        if self._step is not None:
            self._step.abort(cause, lost)

    async def _detach(self) -> None:
        with self._noticing_a_loss():
            await self._services.steps.detach(self.lease, self._services.window_ms, retry_s=self.hold.retry_s)
        self._release(LeaseLost(f"turn {self.turn_id} was detached; adopt it to continue"))

    async def _open(self, wanted: str | None) -> Step:
        self._check_free()
        step_id = self._next_id() if wanted is None else wanted
        context = context_of(self.context, step_id)
        self._opening = step_id
        try:
            await self._conversation.choose_codec()
            with self._noticing_a_loss():
                started = await self._services.steps.start(
                    self.lease,
                    uuid.uuid4().hex,
                    step_id,
                    step_messages(context),
                    retry_s=self.hold.retry_s,
                )
        except BaseException:
            self._opening = None
            raise
        lease = replace(self.lease, step_start_serial=started.serial, attempt=started.attempt)
        writer = TurnWriter(
            self._services.turns,
            lease,
            self.hold,
            self._services.flush_timer,
            lambda lost: self.abort(AbortCause.LEASE_LOST),
        )
        turn = Turn(
            lease, context, self._conversation, writer, self._steering, self._services.inputs, self._report,
            self._services.threads,
        )  # fmt: skip
        turn.pass_number = self._steps_done
        self._step = Step(turn, writer, step_id, started.serial, is_new=started.attempt == 1)
        self._note(self._step, StepOutcome.OPEN)
        self._warn_of_appending(self._step, chosen=wanted is not None)
        return self._step

    def _next_id(self) -> str:
        last = self._last
        return last.step_id if last.is_unfinished else step_id_for(self.context.invocation_id, last.count)

    def _note(self, step: Step, outcome: StepOutcome) -> None:
        is_another = outcome is StepOutcome.OPEN and step.is_new
        self._last = LastStep(step.step_id, outcome, step.serial, self._last.count + is_another)

    def _warn_of_appending(self, step: Step, *, chosen: bool) -> None:
        """A retry under another id leaves the earlier output where it is, which is seldom meant (DUR-3)."""
        before, self._adopted = self._adopted, None
        if before is None or not step.is_new or not before.count:
            return
        if before.is_unfinished or not chosen:
            logger.warning(
                "step.appends %s step=%s after=%s: the earlier output stays; use the same step id for a retry",
                self._names(), step.step_id, before.step_id,
            )  # fmt: skip

    async def _close(self, step: Step, reason: StepReason) -> None:
        outcome = StepOutcome.COMPLETE if reason is StepReason.COMPLETE else StepOutcome.FAILED
        with self._noticing_a_loss():
            await self._services.steps.end(
                self.lease, step.serial, outcome, _step_end(step, reason), retry_s=self.hold.retry_s
            )
        self._note(step, outcome)
        if outcome is StepOutcome.COMPLETE:
            self._steps_done += 1
            self._answered = True

    async def _fail_step(self, step: Step, error: BaseException) -> None:
        """End the step as failed, unless the turn is no longer ours; what was written of it stays until a retry."""
        if self._released is not None:
            return
        logger.warning("step.failed %s step=%s error=%r", self._names(), step.step_id, error)
        try:
            await step.finish_writes()
        except TransportError as unsent:
            logger.warning("step.unsent %s step=%s error=%s", self._names(), step.step_id, unsent)
        try:
            await self._close(step, StepReason.FAILED)
        except TransportError as failure:
            logger.warning("step.end_failed %s step=%s error=%s", self._names(), step.step_id, failure)

    async def _suspend(self, step: Step, wait: Wait) -> None:
        await step.finish_writes()
        await self._close(step, StepReason.COMPLETE)
        await self._ending.suspend(wait)
        self._release(LeaseLost(f"turn {self.turn_id} waits for people; create it again to continue"))

    async def _end(self, status: str, messages: Sequence[Message]) -> bool:
        """Write the terminal; False, and nothing is written, while a steer waits that a success would pass over."""
        with self._noticing_a_loss():
            if not await self._ending.end(status, [CreateMessage(message) for message in messages]):
                return False
        self._release(LeaseLost(f"turn {self.turn_id} has ended ({status})"))
        logger.info("turn.ended %s outcome=%s", self._names(), status)
        return True

    def _error_chunks(self, error: ErrorInfo) -> list[Message]:
        """The end of the answer's stream, as part of the last step if there was one."""
        if not self._last.step_id:
            return []
        context = context_of(self.context, self._last.step_id)
        return self._ending.error_chunks(context, error, self._last.start_serial)

    async def _report(self, status: str) -> None:
        await self._services.presence.show(self.session, self.context.agent_client_id, self.turn_id, status)

    def _check_held(self) -> None:
        if self._released is not None:
            raise self._released

    def _check_free(self) -> None:
        self._check_held()
        if self._opening is not None:
            raise StepOpen(
                f"the step {self._opening!r} of turn {self.turn_id} is still open; one is open at a time",
                detail={"turn": self.turn_id, "step": self._opening},
            )

    def _release(self, why: LeaseLost) -> None:
        if self._released is None:
            self._released = why
            self._services.released(self)

    @contextmanager
    def _noticing_a_loss(self) -> Iterator[None]:
        """A refused call shows that the turn is no longer held, if the notification is late or lost."""
        try:
            yield
        except LeaseLost as lost:
            self._release(lost)
            raise

    def _lost(self, cause: AbortCause) -> LeaseLost:
        return LeaseLost(
            f"turn {self.turn_id} may no longer be written by this process: {cause.value}",
            detail={"turn": self.turn_id, "session": self.session, "status": cause.value},
        )

    def _names(self) -> Fields:
        return Fields(session=self.session, turn=self.turn_id)


def _step_end(step: Step, reason: StepReason) -> Message:
    return lifecycle.step_end(step.context, step.serial, reason)
