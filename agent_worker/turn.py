"""The handle an agent works with: who asked what, and the one way to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from agent_worker import sources
from agent_worker.output import Output, Piece
from agent_worker.writer import TurnWriter
from selfhost_transport.errors import LeaseLost
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.prompt import PartialAnswers, PromptMessage

if TYPE_CHECKING:
    from agent_worker.conversation import Conversation


class AbortCause(StrEnum):
    """Why a running turn was stopped (CAN-21)."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    DEADLINE = "deadline"
    WORKER_SHUTDOWN = "worker_shutdown"


class PipeReason(StrEnum):
    """How a source ended."""

    COMPLETE = "complete"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(slots=True, frozen=True)
class PipeResult:
    """What became of a source. `error`: what it raised; `message_id`: the codec message it was written to."""

    reason: PipeReason
    message_id: str
    error: Exception | None = None

    def raise_for_error(self) -> None:
        """Raise the source's exception, if it ended with one."""
        if self.error is not None:
            raise self.error


class Turn:
    """One attempt at one turn. Its life cycle belongs to the runtime: an agent only reads, writes, and returns.

    When the turn is cancelled or its lease is lost, the agent's task is cancelled like any asyncio task; nothing
    it writes afterwards reaches the session (P2, P6).
    """

    def __init__(
        self, lease: Lease, context: TurnContext, conversation: Conversation, writer: TurnWriter
    ) -> None:
        self.context = context
        self.conversation = conversation
        # Set when the attempt is stopped from outside; `abort_cause` then says why.
        self.aborted = asyncio.Event()
        self.abort_cause: AbortCause | None = None
        # The outcome of the last pipe: what the turn ends with, unless the agent raises.
        self.last_result: PipeResult | None = None
        self._lease = lease
        self._writer = writer

    @property
    def turn_id(self) -> str:
        """The id of the turn, known to its sender before anything was acknowledged."""
        return self._lease.turn_id

    @property
    def session(self) -> str:
        """The session's name."""
        return self._lease.session

    @property
    def attempt(self) -> int:
        """1 for the first try; one more after each worker that was lost and each failure that is repeated."""
        return self._lease.attempt

    @property
    def owner(self) -> str | None:
        """The verified client id of whoever started the turn; None: anonymous."""
        return self.context.owner_client_id

    async def text(self) -> str:
        """The text of the user's message that is to be answered."""
        return await self.conversation.text()

    async def messages(self, partial_answers: PartialAnswers = PartialAnswers.KEEP) -> list[PromptMessage]:
        """The conversation as the model should see it, oldest first, read from the history when asked for."""
        return await self.conversation.messages(partial_answers)

    async def pipe(self, source: AsyncIterable[Piece] | Iterable[Piece]) -> PipeResult:
        """Write everything a source yields as one assistant message, then close the source.

        An exception of the source is returned, not raised (STR-4). A turn whose last pipe failed ends with `error`
        unless the agent pipes something else or raises.
        """
        output = Output(self.context, self._writer, self._lease.step_start_serial)
        try:
            await output.take(sources.iterate(source))
            await output.finish()
            result = PipeResult(PipeReason.COMPLETE, output.message_id)
        except LeaseLost:
            result = PipeResult(PipeReason.CANCELLED, output.message_id)
        except asyncio.CancelledError:
            # A scope of the agent's own, such as a timeout: the turn goes on, this message does not.
            if not self.aborted.is_set():
                await output.abandon()
            raise
        except Exception as error:
            result = await self._failed(output, error)
        finally:
            await sources.close(source)
        self.last_result = result
        return result

    async def _failed(self, output: Output, error: Exception) -> PipeResult:
        if not self._writer.stopped:
            await output.abandon()
        return PipeResult(PipeReason.ERROR, output.message_id, error)
