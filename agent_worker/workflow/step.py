"""One attempt at one step of a turn that is held outside a worker (protocol section 8.3)."""

from __future__ import annotations

from dataclasses import replace

from agent_worker.agent.turn import AbortCause, Turn
from agent_worker.output.writer import TurnWriter
from agent_worker.runtime.abort_scope import AbortScope
from selfhost_transport.errors import InvalidArgument, LeaseLost
from selfhost_transport.store.turn_request import closing_messages_for
from selfhost_transport.store.turn_steps import StepMessages
from selfhost_transport.turns.context import TurnContext

MAX_STEP_ID = 256
"""Characters of a step id."""


class Step:
    """A running step. `turn` is the handle that its code writes with."""

    def __init__(self, turn: Turn, writer: TurnWriter, step_id: str, serial: str, *, is_new: bool) -> None:
        self.turn = turn
        self.step_id = step_id
        self.serial = serial
        # Whether its id was used for the first time.
        self.is_new = is_new
        self.scope = AbortScope()
        self._writer = writer

    @property
    def context(self) -> TurnContext:
        """Of the step's own messages."""
        return self.turn.context

    def check(self) -> None:
        """Raise what the step's last source ended with, or what stopped its writer."""
        self._writer.check()
        if self.turn.last_result is not None:
            self.turn.last_result.raise_for_error()

    async def finish_writes(self) -> None:
        """Send what was gathered and wait until it is written, unless the writer was stopped."""
        if not self._writer.stopped:
            await self._writer.finish_writes()

    def abort(self, cause: AbortCause, lost: LeaseLost) -> None:
        """Refuse further writes and leave the step's block with `lost`."""
        self.turn.abort_cause = cause
        self.turn.aborted.set()
        self._writer.stop(lost)
        self.scope.abort(lost)

    def close(self) -> None:
        """Refuse writes with the handle after the step."""
        self._writer.stop(InvalidArgument(f"the step {self.step_id!r} is over; start another one to write"))
        self._writer.let_go()


def context_of(context: TurnContext, step_id: str) -> TurnContext:
    """The same invocation in a step. Raises InvalidArgument for an id that is empty or too long."""
    if not 0 < len(step_id) <= MAX_STEP_ID:
        raise InvalidArgument(f"a step id has 1 to {MAX_STEP_ID} characters")
    return replace(context, step_id=step_id)


def step_messages(context: TurnContext) -> StepMessages:
    """The messages that begin and end the context's step."""
    messages = closing_messages_for(context)
    lost = [messages.output_lost] if messages.output_lost else []
    return StepMessages(
        start=messages.step_start,
        cancelled=messages.step_cancelled,
        failed=[*lost, messages.step_failed],
        abandoned=messages.step_failed,
    )
