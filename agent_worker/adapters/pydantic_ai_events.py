"""Agents and models of `pydantic-ai`.

    prompt = await turn.conversation.messages()
    await turn.pipe(stream(agent.run_stream_events(message_history=messages(prompt))))

Give the agent its `instructions`, not a `system_prompt`: with a history the latter is not sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

from pydantic_ai import exceptions as exc
from pydantic_ai import messages as m
from pydantic_ai.models import StreamedResponse
from pydantic_ai.run import AgentRunResultEvent
from pydantic_ai.usage import RequestUsage, RunUsage
from pydantic_core import to_jsonable_python

from agent_worker.adapters import counts
from agent_worker.adapters import prompt as conv
from agent_worker.adapters.failures import Failure, classify, codes_in
from agent_worker.adapters.stream import TOOL_CALLS, ProviderStream, Source, Translation
from agent_worker.adapters.transport_failures import of_transport
from agent_worker.output.usage import Usage
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.prompt import PromptMessage
from selfhost_transport.turns.values import as_text

Event: TypeAlias = m.AgentStreamEvent | m.ModelResponseStreamEvent | AgentRunResultEvent[Any]

_FINISH_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_call": TOOL_CALLS,
    "error": "error",
}
# By the names of the classes, the most specific one counting: the categories came one release after another.
_FAILURES: Final = {
    "ModelQuotaExceededError": Failure.EXHAUSTED,
    "ModelRateLimitError": Failure.RATE_LIMITED,
    "ModelUnavailableError": Failure.OVERLOADED,
    "ModelServerError": Failure.FAILED,
    "ModelContextWindowExceededError": Failure.TOO_LONG,
    "ModelAuthenticationError": Failure.NO_ACCESS,
    "ModelRequestRejectedError": Failure.REJECTED,
    "ModelTimeoutError": Failure.TIMED_OUT,
    "ModelRequestTimeout": Failure.TIMED_OUT,
    "ModelConnectionError": Failure.UNREACHABLE,
    "ContentFilterError": Failure.BLOCKED,
    "UnexpectedModelBehavior": Failure.UNUSABLE,
    "UsageLimitExceeded": Failure.EXHAUSTED,
    # The application stopped the run itself (`events.cancel()`, a CancellationToken): the turn was not cancelled.
    "RunCancelled": Failure.STOPPED,
    # `timeout=` of a run.
    "RunTimedOut": Failure.TIMED_OUT,
    "ConcurrencyLimitExceeded": Failure.OVERLOADED,
    # What the SDKs of the providers raise, which older releases wrap in an error without a category.
    "APITimeoutError": Failure.TIMED_OUT,
    "APIConnectionError": Failure.UNREACHABLE,
}


def stream(source: Source[Event], *, finish: bool = True) -> ProviderStream[Event]:
    """The chunks of `agent.run_stream_events(…)`, with its tools' results, or of `model_request_stream(…)`.

    `finish=False` leaves the message open for more.
    """
    return ProviderStream(source, RunTranslation(), finish=finish)


class RunTranslation(Translation[Event]):
    """One run of an agent, which may call its model several times, or one call of a model."""

    def __init__(self) -> None:
        super().__init__()
        # The calls of the current response by the index of their part.
        self._calls: dict[int, str] = {}
        # Results have come since the model spoke: what it says next is another step.
        self._answered = False
        self._response: StreamedResponse | None = None

    def opened(self, response: object) -> None:
        """A direct call of a model says why it stopped in the response, not in an event."""
        if isinstance(response, StreamedResponse):
            self._response = response

    def feed(self, event: Event) -> Iterable[p.Chunk]:
        """The chunks of one event."""
        match event:
            case m.PartDeltaEvent():
                return self._delta(event)
            case m.PartStartEvent():
                return [*self._next_step(), *self._start(event.index, event.part)]
            case m.PartEndEvent():
                return self._end(event.part)
            case m.ToolResultEvent():
                self._answered = True
                return self._result(event.part)
            case AgentRunResultEvent():
                self.finish_reason = self._reason(event.result.response.finish_reason)
                self.usage = _usage(event.result.usage)
        return ()

    def failure(self, error: Exception) -> Failure | None:
        """What an exception of the library means; a tool's own exceptions are not the provider's."""
        if isinstance(error, exc.ModelHTTPError):
            return _by_name(error) or classify(error.status_code, *codes_in(error.body))
        if isinstance(error, exc.ModelAPIError):
            return _by_name(error) or _by_name(error.__cause__) or Failure.FAILED
        return _by_name(error) or of_transport(error)

    def end(self, finish: bool) -> list[p.Chunk]:
        """What closes the answer."""
        ended = self.parts.end_all()
        if self._response is not None:
            self.finish_reason = self._reason(self._response.finish_reason)
            self.usage = _usage(self._response.usage)
        return [*ended, *super().end(finish)]

    def _reason(self, reason: m.FinishReason | None) -> str:
        """Not every model says why it stopped; one with unanswered calls waits for the answers."""
        return TOOL_CALLS if self.parts.calls else _FINISH_REASONS.get(reason or "stop", "other")

    def _next_step(self) -> list[p.Chunk]:
        if not self._answered:
            return []
        self._answered = False
        self._calls.clear()
        return [*self.parts.end(), p.FinishStep()]

    def _start(self, index: int, part: m.ModelResponsePart) -> list[p.Chunk]:
        match part:
            case m.TextPart():
                return self.parts.text(index, part.content)
            case m.ThinkingPart():
                return self.parts.reasoning(index, part.content)
            case m.BaseToolCallPart():
                self._calls[index] = part.tool_call_id
                executed = True if isinstance(part, m.NativeToolCallPart) else None
                begun = self.parts.call(part.tool_call_id, part.tool_name, executed=executed)
                # Arguments that are no text yet come whole at the end.
                return begun + self.parts.arguments(
                    part.tool_call_id, part.args if isinstance(part.args, str) else ""
                )
            case m.BaseToolReturnPart():
                return self._result(part)
            case m.FilePart():
                return [*self.parts.end(), p.File(part.content.data_uri, part.content.media_type)]
            case _:
                return []

    def _delta(self, event: m.PartDeltaEvent) -> list[p.Chunk]:
        match event.delta:
            case m.TextPartDelta(content_delta=text):
                return self.parts.text(event.index, text)
            case m.ThinkingPartDelta(content_delta=str(text)):
                return self.parts.reasoning(event.index, text)
            case m.ToolCallPartDelta(args_delta=str(text)):
                return self.parts.arguments(self._calls.get(event.index, ""), text)
            case _:
                return []

    def _end(self, part: m.ModelResponsePart) -> list[p.Chunk]:
        if isinstance(part, m.BaseToolCallPart):
            return self.parts.call_ready(part.tool_call_id, part.args_as_json_str())
        return self.parts.end() if isinstance(part, m.TextPart | m.ThinkingPart) else []

    def _result(self, part: m.BaseToolReturnPart[Any]) -> list[p.Chunk]:
        executed = True if isinstance(part, m.NativeToolReturnPart) else None
        self.parts.answered(part.tool_call_id)
        if part.outcome == "denied":
            return [*self.parts.end(), p.ToolOutputDenied(part.tool_call_id)]
        output = to_jsonable_python(part.content, fallback=str)
        if part.outcome == "success":
            return [
                *self.parts.end(),
                p.ToolOutputAvailable(part.tool_call_id, output, provider_executed=executed),
            ]
        text = as_text(output)
        return [*self.parts.end(), p.ToolOutputError(part.tool_call_id, text, provider_executed=executed)]


def _usage(used: RunUsage | RequestUsage) -> Usage:
    """What a run, or one call, used; its parts as the library adds them up."""
    return Usage(
        used.input_tokens,
        used.output_tokens,
        used.cache_read_tokens,
        counts.count(used, "output_reasoning_tokens"),
    )


def _by_name(error: BaseException | None) -> Failure | None:
    names = (kind.__name__ for kind in type(error).__mro__)
    return next((_FAILURES[name] for name in names if name in _FAILURES), None)


def messages(prompt: Iterable[PromptMessage], *, interrupted: str = conv.INTERRUPTED) -> list[m.ModelMessage]:
    """The conversation as `message_history`, the message to be answered last; give no `user_prompt` beside it."""
    found: list[m.ModelMessage] = []
    # The next request: results of tools, then what the user said.
    pending: list[m.ModelRequestPart] = []
    for said in conv.conversation(prompt, interrupted=interrupted):
        if isinstance(said, conv.User):
            pending.append(m.UserPromptPart(said.written(_part)))
            continue
        if pending:
            found.append(m.ModelRequest(pending))
        found.append(m.ModelResponse(_assistant(said)))
        pending = [_tool_return(call) for call in said.calls]
    if pending:
        found.append(m.ModelRequest(pending))
    return found


def _part(item: str | conv.Attachment) -> m.UserContent:
    if isinstance(item, str):
        return item
    if item.base64 is not None and (item.is_image or item.is_pdf):
        return m.BinaryContent.from_data_uri(item.url)
    if item.url.startswith("https:") and item.is_image:
        return m.ImageUrl(item.url, media_type=item.media_type)
    if item.url.startswith("https:") and item.is_pdf:
        return m.DocumentUrl(item.url, media_type=item.media_type)
    return item.mention


def _assistant(said: conv.Assistant) -> list[m.ModelResponsePart]:
    calls: list[m.ModelResponsePart] = [
        m.ToolCallPart(call.name, dict(call.input), call.id) for call in said.calls
    ]
    return [m.TextPart(said.text), *calls] if said.text else calls


def _tool_return(call: conv.Call) -> m.ToolReturnPart:
    outcome: Literal["failed", "success"] = "failed" if call.failed else "success"
    return m.ToolReturnPart(call.name, call.result, call.id, outcome=outcome)
