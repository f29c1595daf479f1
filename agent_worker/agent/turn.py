"""The handle an agent works with: who asked what, and the one way to answer."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from agent_worker.agent.reading import Wanted
from agent_worker.agent.suspension import Answer, Default, Suspended, Wait
from agent_worker.agent.tools import MAX_RESULT_BYTES, Offload, Tool, ToolCall, run_tool
from agent_worker.output import sources
from agent_worker.output.left_behind import LeftBehind
from agent_worker.output.message import Earlier, Output, OutputChunk
from agent_worker.output.usage import Usage, UsageCount, counting
from agent_worker.output.writer import TurnWriter
from agent_worker.user_code.threads import PulledIterable, Threads
from selfhost_transport.errors import LeaseLost
from selfhost_transport.store.turn_inputs import TurnInputs
from selfhost_transport.store.turn_store import Lease
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.client_input import ClientInput
from selfhost_transport.turns.codecs import UI_MESSAGES
from selfhost_transport.turns.context import TurnContext
from selfhost_transport.turns.outputs import Close, OutputOperation
from selfhost_transport.turns.prompt import PartialAnswers, PromptMessage
from selfhost_transport.turns.seed import Seed, Stored

if TYPE_CHECKING:
    from agent_worker.agent.conversation import Conversation
    from agent_worker.agent.steering import Steering


_open_message: ContextVar[Output | None] = ContextVar("open_message", default=None)
"""The message being written here. Of the task, so that pipes and tools that run side by side have their own."""


class AbortCause(StrEnum):
    """Why a running turn was stopped."""

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
    it writes afterwards reaches the session. The agent is called once per pass: again after a steer
    the turn before it could end, and again, from the beginning, when a suspended turn continues.
    """

    def __init__(
        self,
        lease: Lease,
        context: TurnContext,
        conversation: Conversation,
        writer: TurnWriter,
        steering: Steering,
        inputs: TurnInputs,
        report: Callable[[str], Awaitable[None]],
        threads: Threads,
    ) -> None:
        self.context = context
        self.conversation = conversation
        # Set when the attempt is stopped from outside; `abort_cause` then says why.
        self.aborted = asyncio.Event()
        self.abort_cause: AbortCause | None = None
        # The outcome of the last pipe: what the turn ends with, unless the agent raises.
        self.last_result: PipeResult | None = None
        # What an attempt before this one had written, where the agent continues after a crash; else ''. It is in
        # the session already: the agent yields what comes after it.
        self.partial = ""
        # Counts the calls of the agent within this attempt, from 0.
        self.pass_number = 0
        self._lease = lease
        self._writer = writer
        self._steering = steering
        self._inputs = inputs
        self._report = report
        self._threads = threads
        self._earlier = Earlier("")
        # The message that a lost attempt left, until the agent continues with it.
        self._left: Output | None = None
        # The message that each call of this invocation was announced in.
        self._announced_in: dict[str, Output] = {}
        self._closing_note: str | None = None
        self._usage = UsageCount()

    def __repr__(self) -> str:
        state = f"aborted ({self.abort_cause})" if self.abort_cause is not None else f"attempt {self.attempt}"
        return f"<Turn {self.turn_id} of {self.session!r} {state}>"

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
    def invocation(self) -> int:
        """0 at first; one more with every time the turn went on after a suspension."""
        return self.context.invocation

    @property
    def owner(self) -> str | None:
        """The verified client id of the turn's owner; None: anonymous."""
        return self.context.owner_client_id

    @property
    def input_client(self) -> str | None:
        """The verified client id that caused this invocation: the sender, or the last to answer."""
        return self.context.input_client_id

    @property
    def usage(self) -> Usage:
        """What the model calls of this attempt have used so far."""
        return self._usage.total

    def note_usage(self, usage: Usage) -> None:
        """Count a model call that no adapter made; with the message that is being written, if there is one."""
        (counting.get() or self._usage).add(usage)

    @property
    def steers(self) -> tuple[str, ...]:
        """Codec message ids of the messages sent into the turn that this pass answers."""
        return self._steering.ids

    async def text(self) -> str:
        """The text that is to be answered: the user's message; in a later pass, what was sent into the turn."""
        if self.steers and self.pass_number:
            return await self.conversation.texts_of(self.steers)
        return await self.conversation.text()

    async def messages(
        self,
        partial_answers: PartialAnswers = PartialAnswers.KEEP,
        *,
        with_reasoning: bool = False,
        seed: Seed | Sequence[Stored] | None = None,
        last: int | None = None,
    ) -> list[PromptMessage]:
        """The conversation as the model should see it, oldest first, read from the history when asked for.

        With a `seed`, the conversation as the application has stored it, only what is not in that is read;
        raises ResumePointLost where messages may be in neither. Steers that are in the conversation count as answered by what is
        written from here on. `last`: no more than so many messages, which also bounds what is read of a long session; raises
        ConversationTooLong where more than 200,000 messages of the session, or 256 MiB, would have to be read.
        """
        stored = None if seed is None else Seed.of(seed)
        return (await self._steering.consume(Wanted(partial_answers, with_reasoning, stored, last))).prompt

    async def answers(self) -> list[Answer]:
        """What people answered to calls of this turn, oldest first, with who it was."""
        return await self.conversation.answers()

    async def client_input(self) -> ClientInput:
        """The state, the tools of its own, the context and the properties that an AG-UI client sent with this invocation."""
        return await self.conversation.client_input()

    async def report(self, status: str) -> None:
        """Show people a status of the agent's own in the session's presence, until the next one."""
        await self._report(status)

    async def pending_followups(self) -> list[str]:
        """Ids of the turns that wait in the session for this one to end."""
        return await self._inputs.waiting(self.session)

    async def pipe(self, source: AsyncIterable[OutputChunk] | Iterable[OutputChunk]) -> PipeResult:
        """Write everything a source yields as one assistant message, then close the source.

        An exception of the source is returned, not raised. A turn whose last pipe failed ends with `error`
        unless the agent pipes, or yields, something else or raises.
        """
        output = self._message()
        before = self.last_result
        # Closed in the end: the source, or the reader of a plain one.
        reading: object = source
        try:
            async with self._writing(output):
                items = sources.iterate(source, self._threads)
                reading = items if isinstance(items, PulledIterable) else source
                await output.take(items)
            result = PipeResult(PipeReason.COMPLETE, output.message_id)
            inner = self.last_result
            if output.abandoned and inner is not None and inner is not before and inner.error is not None:
                # What the source itself piped last failed, and it wrote nothing after it.
                result = inner
        except Exception as error:
            if not self._writer.stopped:
                await output.abandon()
            # A source may raise it of its own; then the turn is not lost.
            if isinstance(error, LeaseLost) and self._writer.stopped:
                result = PipeResult(PipeReason.CANCELLED, output.message_id)
            else:
                result = PipeResult(PipeReason.ERROR, output.message_id, error)
        finally:
            await sources.close(reading, self._threads)
        self.last_result = result
        return result

    @asynccontextmanager
    async def message(self) -> AsyncIterator[None]:
        """Everything written inside is one assistant message: a model's text, its calls, their results, more text."""
        async with self._writing(self._message()):
            yield

    async def tool(
        self,
        call: ToolCall,
        tool: Tool,
        *,
        offload: Offload | None = None,
        max_bytes: int = MAX_RESULT_BYTES,
    ) -> Any:
        """Run a tool of the agent's own and tell the session of the call and its result, which is returned as JSON.

        A result of more than `max_bytes` (of text, or of JSON) is given to `offload`, and the session gets what that returns.
        Raises what the tool raises, and MessageTooLarge (40009) for a result that is too large without it; the session
        is updated. Calls may run side by side.
        """
        output = self._message()
        async with self._writing(output):
            self._announced_in.setdefault(call.call_id, output)
            return await run_tool(output, call, tool, self._threads, offload, max_bytes)

    async def suspend(
        self,
        calls: Sequence[ToolCall],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - people answer, not code
        default: Default | str = Default.DENY,
        escalate_after: float | None = None,
    ) -> None:
        """Wait for people: for the results of client tools, or for approvals. Does not return.

        The turn needs no worker while it waits. Once every call has an answer the agent is called again, and finds
        them in `answers` and in the conversation. After `timeout` seconds silence counts as an error of a client tool,
        and as `default` of an approval. After `escalate_after` seconds, less than that, the session records that no one has
        answered: an entry `ai-run-escalated` with the calls. Raises InvalidArgument without calls.
        """
        outputs = {call.call_id: self._announced_in.get(call.call_id) for call in calls}
        fresh = [call for call in calls if outputs[call.call_id] is None]
        output = self._message()
        ids = [call.message_id or (outputs[call.call_id] or output).message_id for call in calls]
        wait = Wait(tuple(calls), tuple(ids), timeout, Default(default), escalate_after)
        async with self._writing(output):
            await output.write([chunk for call in fresh for chunk in call.chunks()])
            for call in calls:
                if call.needs_approval:
                    await (outputs[call.call_id] or output).write([_request_for(call)])
            raise Suspended(wait)

    def closing_note(self, text: str) -> None:
        """Text to write last, marked as a note, if the turn is cancelled and its hook allows it."""
        self._closing_note = text

    def last_word(self, text: str) -> None:
        """Deprecated: use `closing_note`."""
        warnings.warn("last_word is deprecated: use closing_note", DeprecationWarning, stacklevel=2)
        self.closing_note(text)

    @property
    def final_note(self) -> str | None:
        """The closing note, if there is one."""
        return self._closing_note

    # For the runtime

    def continue_after(self, text: str, *, is_shown: bool) -> None:
        """What a lost attempt had written; the answer begins with it, unless it is shown already."""
        self.partial = text
        if not is_shown:
            self._earlier = Earlier(text)

    async def take_up(self, left: LeftBehind) -> None:
        """Continue in the message that a lost attempt left, if it can be; its calls without a result have failed."""
        if left.finished:
            return
        if self.conversation.codec is UI_MESSAGES:
            self._left = self._output(left)
            for call in left.calls:
                await self._left.write_result(p.ToolOutputError(call, _LOST_CALL))
            return
        # Another codec's message cannot be taken up in its middle: it ends here, and the answer continues in the next.
        closing: list[OutputOperation] = []
        for number, stream in enumerate(left.streams):
            self._writer.take_up(f"left/{number}", stream)
            closing.append(Close(f"left/{number}", stream.closing))
        await self._writer.write(closing)

    async def keep_partial(self) -> None:
        """Write what a lost attempt had written, if the agent added nothing to it; end the message that it left."""
        if self._left is not None:
            async with self._writing(self._message()):
                pass
        if text := self._earlier.take():
            await self.pipe([text])

    def let_go(self) -> None:
        """The attempt is over: the calls that its messages announced keep these no longer."""
        self._announced_in.clear()

    def _message(self) -> Output:
        """The message that is kept open around here, or a new one."""
        current = _open_message.get()
        if current is not None:
            return current
        if self._left is not None:
            left, self._left = self._left, None
            return left
        return self._output()

    def _output(self, left: LeftBehind | None = None) -> Output:
        serial, steering = self._lease.step_start_serial, self._steering
        return Output(
            self.context,
            self._writer,
            serial,
            steers=lambda: steering.ids,
            earlier=self._earlier,
            announced=self._announced_in,
            codec=self.conversation.codec,
            left=left,
            usage=self._usage,
        )

    @asynccontextmanager
    async def _writing(self, output: Output) -> AsyncIterator[None]:
        """Keep a message open, unless it is already; end it as the block ends."""
        if _open_message.get() is output:
            yield
            return
        _open_message.set(output)
        counting.set(output.usage)
        try:
            yield
            await output.finish()
        except Suspended:
            await output.finish()
            raise
        except asyncio.CancelledError:
            # A scope of the agent's own, such as a timeout: the turn continues, this message does not.
            if not self.aborted.is_set():
                await output.abandon()
            raise
        except BaseException:
            if not self._writer.stopped:
                await output.abandon()
            raise
        finally:
            _open_message.set(None)
            counting.set(None)


_LOST_CALL = "The tool was stopped: its worker was lost."


def _request_for(call: ToolCall) -> p.ToolApprovalRequest:
    return p.ToolApprovalRequest(call.call_id, f"approve-{call.call_id}")
