"""Graphs and agents of LangGraph, and models and chains of LangChain.

prompt = await turn.conversation.messages()
await turn.pipe(stream(graph.astream_events({"messages": messages(prompt)}, version="v2")))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from pydantic_core import to_jsonable_python

from agent_worker.adapters import counts
from agent_worker.adapters import prompt as conv
from agent_worker.adapters.failures import Failure, classify, codes_in
from agent_worker.adapters.stream import TOOL_CALLS, ProviderStream, Source, Translation
from agent_worker.adapters.transport_failures import of_transport
from agent_worker.output.usage import Usage
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.prompt import PromptMessage
from selfhost_transport.turns.values import as_text, carried, to_text

Event: TypeAlias = Mapping[str, Any]

_FINISH_REASONS: Final = {
    "stop": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content-filter",
    "refusal": "content-filter",
}
_BY_NAME: Final = {"APITimeoutError": Failure.TIMED_OUT, "APIConnectionError": Failure.UNREACHABLE}


def stream(source: Source[Event], *, finish: bool = True) -> ProviderStream[Event]:
    """The chunks of `astream_events(…, version="v2")`: what models say, and the calls and results of tools.

    `finish=False` leaves the message open for more.
    """
    return ProviderStream[Event](source, GraphTranslation(), finish=finish)


class GraphTranslation(Translation[Event]):
    """One run of a graph, which may call models several times. Their runs are distinguished by id."""

    def __init__(self) -> None:
        super().__init__()
        # The run that everything else belongs to: the first to be named.
        self._root: str | None = None
        # By run of a model: the ids of its calls by their index; a run without an entry has said nothing yet.
        self._calls: dict[str, dict[int, str]] = {}
        # Results have come since a model spoke: what one says next is another step.
        self._answered = False
        self._reason = "stop"

    def feed(self, event: Event) -> Iterable[p.Chunk]:
        """The chunks of one event. Raises InvalidArgument for those of another version."""
        if "run_id" not in event:
            raise InvalidArgument('the events are not those of astream_events(…, version="v2")')
        run, kind, data = event["run_id"], event["event"], event["data"]
        self._root = self._root or run
        chunks: list[p.Chunk] = []
        if kind == "on_chat_model_stream":
            chunks = [*self._next_step(), *self._said(run, data["chunk"])]
        elif kind == "on_chat_model_end":
            chunks = [*self._next_step(), *self._model_ended(run, data["output"])]
        elif kind == "on_tool_end":
            chunks = [*self._result(data.get("output"))]
        if run == self._root and kind.endswith("_end"):
            self.finish_reason = TOOL_CALLS if self.parts.calls else self._reason
        return chunks

    def failure(self, error: Exception) -> Failure | None:
        """What an exception of a model's library means; others are the graph's own."""
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            return classify(status, *codes_in(getattr(error, "body", None)))
        names = (kind.__name__ for kind in type(error).__mro__)
        return next((_BY_NAME[name] for name in names if name in _BY_NAME), None) or of_transport(error)

    def _next_step(self) -> list[p.Chunk]:
        if not self._answered:
            return []
        self._answered = False
        return [*self.parts.end(), p.FinishStep()]

    def _said(self, run: str, message: Any) -> Iterator[p.Chunk]:
        calls = self._calls.setdefault(run, {})
        thought = message.additional_kwargs.get("reasoning_content")
        if isinstance(thought, str):
            yield from self.parts.reasoning(run, thought)
        yield from self._content(run, message.content)
        for number, call in enumerate(getattr(message, "tool_call_chunks", ())):
            index = call["index"] if isinstance(call["index"], int) else number
            if index not in calls:
                calls[index] = call["id"] or f"call-{run}-{index}"
                yield from self.parts.call(calls[index], call["name"] or "")
            yield from self.parts.arguments(calls[index], call["args"] or "")

    def _content(self, run: str, content: Any) -> Iterator[p.Chunk]:
        """A text, or a list of texts and blocks."""
        for block in content if isinstance(content, list) else [content]:
            if isinstance(block, str):
                yield from self.parts.text(run, block)
                continue
            kind = counts.member(block, "type")
            if kind == "text":
                yield from self.parts.text(run, str(counts.member(block, "text") or ""))
            elif kind in ("thinking", "reasoning"):
                yield from self.parts.reasoning(run, str(counts.member(block, kind) or ""))

    def _model_ended(self, run: str, message: Any) -> Iterator[p.Chunk]:
        spoke = run in self._calls
        known = self._calls.pop(run, {})
        if not spoke:  # a model that does not stream
            yield from self._content(run, message.content)
        for call in getattr(message, "tool_calls", ()):
            if call["id"] not in known.values():
                yield from self.parts.call(call["id"], call["name"])
            yield from self.parts.call_ready(call["id"], to_text(carried(call["args"], "arguments")))
        yield from self.parts.end()
        about = getattr(message, "response_metadata", {})
        self._reason = _FINISH_REASONS.get(
            about.get("finish_reason") or about.get("stop_reason") or "stop", "other"
        )
        if (used := getattr(message, "usage_metadata", None)) is not None:
            self.usage = (self.usage or Usage()) + Usage(
                counts.count(used, "input_tokens"),
                counts.count(used, "output_tokens"),
                counts.count(used, "input_token_details", "cache_read"),
                counts.count(used, "output_token_details", "reasoning"),
            )

    def _result(self, output: Any) -> Iterator[p.Chunk]:
        """The result of a call that a model has made; a tool that the graph calls by itself is its own matter."""
        if not isinstance(output, ToolMessage) or all(
            call.tool_call_id != output.tool_call_id for call in self.parts.calls
        ):
            return
        self._answered = True
        self.parts.answered(output.tool_call_id)
        content = to_jsonable_python(output.content, fallback=str)
        yield from self.parts.end()
        if output.status == "error":
            yield p.ToolOutputError(output.tool_call_id, as_text(content))
        else:
            yield p.ToolOutputAvailable(output.tool_call_id, content)


def messages(prompt: Iterable[PromptMessage], *, interrupted: str = conv.INTERRUPTED) -> list[BaseMessage]:
    """The conversation as messages of LangChain; put your system message in front. Every tool call has its result."""
    found: list[BaseMessage] = []
    for said in conv.conversation(prompt, interrupted=interrupted):
        if isinstance(said, conv.User):
            found.append(HumanMessage(_content(said)))
            continue
        calls = [{"id": call.id, "name": call.name, "args": dict(call.input)} for call in said.calls]
        found.append(AIMessage(said.text, tool_calls=calls))
        found += [
            ToolMessage(call.result, tool_call_id=call.id, status="error" if call.failed else "success")
            for call in said.calls
        ]
    return found


def _content(said: conv.User) -> Any:
    return said.written(conv.chat_part)
