"""How a turn ends or pauses: one place for a worker's turns and for those that are worked on step by step."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from agent_worker.agent.conversation import Conversation
from agent_worker.agent.suspension import Wait
from agent_worker.output.writer import Hold
from selfhost_transport.errors import ErrorInfo, StoreFull
from selfhost_transport.store.turn_operations import CreateMessage, WriteOperation
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_store import Lease, TurnStore
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import encoder, lifecycle
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.wire.message import Message

COMPLETED, FAILED, CANCELLED = "completed", "failed", "cancelled"

_FULL_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Ending:
    """Writes what closes a turn. Raises LeaseLost, StoreFull, StoreUnavailable."""

    turns: TurnStore
    pauses: TurnPauses
    lease: Lease
    hold: Hold
    context: TurnContext
    conversation: Conversation

    async def end(self, status: str, last: Sequence[WriteOperation]) -> bool:
        """Write the terminal in one step; while Redis is full, try again for as long as the lease lasts (OPS-9).

        A success is not written while a steer waits that it would pass over: then False.
        """
        while True:
            try:
                position = await self.turns.end(
                    self.lease, status, last, unless_steered=status == COMPLETED, retry_s=self.hold.retry_s
                )
                return position is not None
            except StoreFull:
                if not self.hold.remaining_s:
                    raise
                await asyncio.sleep(_FULL_PAUSE_S)  # nothing announces that memory was freed

    async def suspend(self, wait: Wait, before: Sequence[WriteOperation] = ()) -> bool:
        """Give the turn up until people have answered; False: they have already, and it is queued again (TOL-2)."""
        answers, continuation = wait.expiry(self.context, self.conversation.codec.input_form)
        return await self.pauses.suspend(
            self.lease,
            wait.awaited,
            [*before, CreateMessage(lifecycle.run_suspend(self.context))],
            limit_ms=int((wait.timeout_s or 0) * 1000),
            escalation=wait.escalation(self.context),
            expiry_answers=answers,
            continuation=continuation,
            retry_s=self.hold.retry_s,
        )

    def error_chunks(
        self, context: TurnContext, error: ErrorInfo, start_serial: str, message_id: str = ""
    ) -> list[Message]:
        """The end of the answer's stream: without it `useChat` takes a failure for a success (10.1 e).

        `message_id`: the message that the answer is written to; '' for one of its own.
        """
        writing = self.conversation.codec.encoder(context, message_id or str(uuid.uuid4()), start_serial)
        ops = writing.encode(p.Error(error.message))
        return [op.message for op in ops if isinstance(op, encoder.Create)]
