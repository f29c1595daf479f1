"""OpenAI's Responses API.

prompt = await turn.conversation.messages()
await turn.pipe(stream(client.responses.create(model=…, input=messages(prompt), stream=True)))
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any, Final

import msgspec
import openai
from openai.types.responses import (
    Response,
    ResponseInputContentParam,
    ResponseInputItemParam,
    ResponseOutputItem,
    ResponseStreamEvent,
)

from agent_worker.adapters import counts
from agent_worker.adapters import prompt as conv
from agent_worker.adapters.failures import Failure, agent_error, classify
from agent_worker.adapters.lean import body_of, decode_fields, decoder_of, events
from agent_worker.adapters.openai_failures import failure_of, raise_error_in
from agent_worker.adapters.stream import TOOL_CALLS, ProviderStream, Source, Translation
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.prompt import PromptMessage
from selfhost_transport.turns.values import to_text

_INCOMPLETE: Final = {"max_output_tokens": "length", "content_filter": "content-filter"}


_ENDS: Final = ("response.completed", "response.incomplete", "response.failed")
_KINDS: Final = (
    "response.output_text.delta",
    "response.refusal.delta",
    "response.reasoning_summary_text.delta",
    "response.reasoning_text.delta",
    "response.function_call_arguments.delta",
)


class _Delta(msgspec.Struct, gc=False):
    """An event that carries a chunk of the answer, as far as it is read here."""

    type: str
    delta: str
    item_id: str = ""
    content_index: int = 0
    summary_index: int = 0
    error: Any = None


_delta = decoder_of(_Delta)


def stream(
    source: Source[ResponseStreamEvent], *, finish: bool = True, library: bool = False
) -> ProviderStream[Any]:
    """The chunks of `client.responses.create(…, stream=True)`, awaited or not.

    `finish=False` leaves the message open for more, whatever the reason the model stopped for. `library=True` reads
    the events through the `openai` package's own models, at several times the CPU.
    """
    return ProviderStream(source, ResponsesTranslation(library=library), finish=finish)


class ResponsesTranslation(Translation[Any]):
    """One response. Events are distinguished by `type`: the SDK gives unknown ones an arbitrary class."""

    def __init__(self, *, library: bool = False) -> None:
        super().__init__()
        self._library = library
        # Argument deltas name the output item, results name the call.
        self._ids: dict[str, str] = {}

    def events(self, response: AsyncIterable[Any]) -> AsyncIterable[Any]:
        """The response's events, decoded here unless `library`."""
        body = body_of(response, openai.AsyncStream, library=self._library)
        if body is None:
            return response
        request = body.request
        return events(body, lambda _, data: _decode(data, request))

    def feed(self, event: ResponseStreamEvent) -> Iterable[p.Chunk]:
        """The chunks of one event. Raises AgentError for `response.failed` and `error`."""
        if event.type == "response.output_text.delta":
            return self.parts.text((event.item_id, event.content_index), event.delta)
        if event.type == "response.refusal.delta":
            return self.parts.text((event.item_id, event.content_index), event.delta)
        if event.type == "response.reasoning_summary_text.delta":
            return self.parts.reasoning((event.item_id, "summary", event.summary_index), event.delta)
        if event.type == "response.reasoning_text.delta":
            return self.parts.reasoning((event.item_id, "text", event.content_index), event.delta)
        if event.type == "response.function_call_arguments.delta":
            return self.parts.arguments(self._ids.get(event.item_id, ""), event.delta)
        return self._item_or_end(event)

    def failure(self, error: Exception) -> Failure | None:
        """What an exception of the SDK means."""
        return failure_of(error)

    def _item_or_end(self, event: ResponseStreamEvent) -> Iterable[p.Chunk]:
        if event.type == "response.output_item.added":
            return self._added(event.item)
        if event.type == "response.output_item.done":
            return self._done(event.item)
        if event.type in _ENDS and event.response.usage is not None:
            self.usage = counts.of_responses(event.response.usage)
        if event.type == "response.completed":
            self.finish_reason = TOOL_CALLS if self.parts.calls else "stop"
        elif event.type == "response.incomplete":
            self.finish_reason = _why_incomplete(event.response)
        elif event.type == "response.failed":
            error = event.response.error
            raise agent_error(classify(None, error.code if error else None))
        elif event.type == "error":
            raise agent_error(classify(None, event.code))
        return ()

    def _added(self, item: ResponseOutputItem) -> Iterable[p.Chunk]:
        if item.type != "function_call":
            return ()
        self._ids[item.id or item.call_id] = item.call_id
        return self.parts.call(item.call_id, item.name)

    def _done(self, item: ResponseOutputItem) -> Iterable[p.Chunk]:
        if item.type == "function_call":
            return self.parts.call_ready(item.call_id, item.arguments)
        return self.parts.end()


def _decode(data: bytes, request: Any) -> Any:
    event: Any = _delta(data)
    if event is None or event.type not in _KINDS:
        event = decode_fields(data)
    # The protocol's own `error` event has no member of that name.
    if event.error:
        raise_error_in(event.error, request)
    return event


def _why_incomplete(response: Response) -> str:
    details = response.incomplete_details
    return _INCOMPLETE.get(details.reason or "" if details else "", "other")


def messages(
    prompt: Iterable[PromptMessage], *, interrupted: str = conv.INTERRUPTED
) -> list[ResponseInputItemParam]:
    """The conversation as `input`; the system message goes into `instructions`. Every call has its output."""
    found: list[ResponseInputItemParam] = []
    for said in conv.conversation(prompt, interrupted=interrupted):
        if isinstance(said, conv.User):
            found.append({"type": "message", "role": "user", "content": [_part(i) for i in said.content]})
        else:
            found += _assistant(said)
    return found


def _part(item: str | conv.Attachment) -> ResponseInputContentParam:
    if isinstance(item, str):
        return {"type": "input_text", "text": item}
    if item.is_image:
        return {"type": "input_image", "image_url": item.url, "detail": "auto"}
    if item.url.startswith("https:"):
        return {"type": "input_file", "file_url": item.url}
    return {"type": "input_text", "text": item.mention}


def _assistant(said: conv.Assistant) -> list[ResponseInputItemParam]:
    items: list[ResponseInputItemParam] = []
    if said.text:
        items.append({"role": "assistant", "content": said.text})
    for call in said.calls:
        arguments = to_text(call.input)
        items.append({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments})
    items += [{"type": "function_call_output", "call_id": c.id, "output": c.result} for c in said.calls]
    return items
