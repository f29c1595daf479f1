"""Reading a provider's response as chunks, and closing the response itself when it is no longer wanted (CAN-6)."""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeAlias, TypeVar

from agent_worker.adapters.failures import Failure, agent_error
from agent_worker.adapters.parts import Parts
from agent_worker.output import sources
from agent_worker.output.usage import Usage, note_usage
from selfhost_transport import tracing
from selfhost_transport.errors import InvalidArgument, TransportError
from selfhost_transport.turns import chunks as p

if TYPE_CHECKING:
    from opentelemetry.trace import Span

EventT = TypeVar("EventT")

Source: TypeAlias = (
    AsyncIterable[EventT]
    | Awaitable[AsyncIterable[EventT]]
    | AbstractAsyncContextManager[AsyncIterable[EventT], Any]
)
"""A provider's response, the call that will give it, or the context manager around it."""

TOOL_CALLS = "tool-calls"


class Translation(ABC, Generic[EventT]):
    """How the events of one provider become chunks; the state of one response."""

    def __init__(self) -> None:
        self.parts = Parts()
        # Why the model stopped, as in `Finish`; None: it has not said so.
        self.finish_reason: str | None = None
        # What the provider says that the call used; the newest word counts.
        self.usage: Usage | None = None

    def opened(self, response: object) -> None:
        """The response has arrived; for data that it carries itself rather than its events."""

    def events(self, response: AsyncIterable[EventT]) -> AsyncIterable[EventT]:
        """The events of a response; for providers whose events can be read at less cost than their library's."""
        return response

    @abstractmethod
    def feed(self, event: EventT) -> Iterable[p.Chunk]:
        """The chunks of one event. Raises AgentError for an event that says the answer failed."""

    @abstractmethod
    def failure(self, error: Exception) -> Failure | None:
        """What an exception of the provider's SDK means; None: it is not the provider's."""

    def end(self, finish: bool) -> list[p.Chunk]:
        """What closes the answer. Raises AgentError if the provider hung up without saying why it stopped."""
        if self.finish_reason is None:
            raise agent_error(Failure.INCOMPLETE)
        chunks: list[p.Chunk] = [*self.parts.end_all(), p.FinishStep()]
        # After tool calls the message continues with their results, and often with another model call.
        if finish and self.finish_reason != TOOL_CALLS:
            chunks.append(p.Finish(self.finish_reason))
        return chunks


class ProviderStream(Generic[EventT]):
    """The chunks of one response: an asynchronous iterator for one reader, also usable with `async with`.

    Raises AgentError for whatever goes wrong at the provider. The HTTP response is closed when the stream ends,
    when its reader is cancelled, and by `aclose`, which any task may call, also while the provider is silent.
    """

    def __init__(
        self, source: Source[EventT], translation: Translation[EventT], *, finish: bool = True
    ) -> None:
        self._source = source
        self._translation = translation
        self._chunks = _chunks(source, translation, finish)
        self._next = self._chunks.__anext__
        self._begun = False
        self._closed = False
        # The task that waits for the next chunk.
        self._reader: asyncio.Task[Any] | None = None
        # Exists once another task has asked that reader to give up; set when it has.
        self._unwound: asyncio.Event | None = None

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped (`stop`, `length`, `content-filter`, `tool-calls`, `other`); None until it did."""
        return self._translation.finish_reason

    @property
    def usage(self) -> Usage | None:
        """The tokens that the call used; None until the provider has said so, and where it never does."""
        return self._translation.usage

    @property
    def tool_calls(self) -> Sequence[p.ToolInputAvailable]:
        """The calls that the model has made so far and that are the agent's, or a client's, to answer."""
        return tuple(self._translation.parts.calls)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> p.Chunk:
        """The next chunk."""
        if self._closed:
            raise StopAsyncIteration
        if self._reader is not None:
            raise InvalidArgument("a provider's stream can have one reader only")
        task = asyncio.current_task()
        assert task is not None
        self._begun = True
        self._reader, cancelling = task, task.cancelling()
        try:
            chunk = await self._next()
        except BaseException:
            # Another task closed the stream: the cancel was ours, unless one from outside came as well.
            if self._unwound is None or task.uncancel() > cancelling:
                raise
            raise StopAsyncIteration from None
        finally:
            self._reader = None
            if self._unwound is not None:
                self._unwound.set()
        if self._unwound is not None:  # the cancel was swallowed below
            task.uncancel()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Close the response; a read that is waiting ends the iteration. May be called again."""
        self._closed = True
        if self._reader is not None:
            if self._unwound is None:
                self._unwound = asyncio.Event()
                self._reader.cancel()
            await self._unwound.wait()
        await self._chunks.aclose()
        if not self._begun:
            self._begun = True
            await _discard(self._source)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def _chunks(
    source: Source[EventT], translation: Translation[EventT], finish: bool
) -> AsyncGenerator[p.Chunk, None]:
    # Not a method: a stream that is dropped is then freed, and its response closed, without waiting for the
    # garbage collector.
    span = tracing.start_span("model call", None, {"gen_ai.operation.name": "chat"}, kind="CLIENT")
    failed: BaseException | None = None
    translating = False
    try:
        async with _opened(source, span) as response:
            translation.opened(response)
            async for event in translation.events(response):
                translating = True
                for chunk in translation.feed(event):
                    yield chunk
                translating = False
        ended = translation.end(finish)
        if translation.usage is not None:
            note_usage(translation.usage)
        for chunk in ended:
            yield chunk
    except TransportError as error:
        failed = error
        raise  # said already, or by a tool of the application
    except Exception as error:
        failed = error
        failure = translation.failure(error)
        if failure is None and translating:
            failure = Failure.UNUSABLE  # an event whose members are of other kinds than its protocol says
        if failure is None:
            raise
        raise agent_error(failure, error) from error
    finally:
        # A reader that was cancelled ends it too.
        reason = translation.finish_reason or "unfinished"
        tracing.end_span(span, {"gen_ai.response.finish_reason": reason}, failed)


@asynccontextmanager
async def _opened(source: Source[EventT], span: Span | None) -> AsyncIterator[AsyncIterable[EventT]]:
    """The response, closed on the way out. The call is made below the span, for the HTTP client's own tracing."""
    with tracing.under(span):
        response = await source if inspect.isawaitable(source) else source
    if isinstance(response, AbstractAsyncContextManager):
        async with response as events:
            yield events
    else:
        try:
            yield response
        finally:
            await sources.close(response)


async def _discard(source: object) -> None:
    """Close what was never read: a response, or a call that was never made."""
    if inspect.iscoroutine(source):
        source.close()
    else:
        await sources.close(source)
