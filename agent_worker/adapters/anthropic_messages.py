"""Anthropic's Messages API.

prompt = await turn.conversation.messages()
await turn.pipe(stream(client.messages.create(model=…, messages=messages(prompt), stream=True, …)))
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any, ClassVar, Final, TypeAlias

import anthropic
import msgspec
from anthropic.lib.streaming import ParsedMessageStreamEvent
from anthropic.types import (
    ContentBlockParam,
    MessageParam,
    RawContentBlockDeltaEvent,
    RawContentBlockStartEvent,
    RawMessageStreamEvent,
)
from pydantic_core import to_jsonable_python

from agent_worker.adapters import counts
from agent_worker.adapters import prompt as conv
from agent_worker.adapters.failures import Failure, agent_error, classify, codes_in, message_in
from agent_worker.adapters.lean import body_of, decode_fields, decoder_of, events
from agent_worker.adapters.stream import TOOL_CALLS, ProviderStream, Source, Translation
from agent_worker.adapters.transport_failures import of_transport
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.prompt import PromptMessage

# Quoted: at run time the SDK's second type takes no parameter.
Event: TypeAlias = "RawMessageStreamEvent | ParsedMessageStreamEvent[Any]"

_STOP_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": TOOL_CALLS,
    "refusal": "content-filter",
}
_RESULT_SUFFIX: Final = "_tool_result"
_TOO_LONG: Final = "prompt is too long"


class _BlockDelta(msgspec.Struct, gc=False):
    type: str
    text: str = ""
    thinking: str = ""
    partial_json: str = ""
    signature: str = ""


class _Delta(msgspec.Struct, tag_field="type", tag="content_block_delta", gc=False):
    """A RawContentBlockDeltaEvent, as far as it is read here."""

    index: int
    delta: _BlockDelta
    type: ClassVar[str] = "content_block_delta"


_delta = decoder_of(_Delta)


def stream(source: Source[Event], *, finish: bool = True, library: bool = False) -> ProviderStream[Any]:
    """The chunks of `client.messages.create(…, stream=True)`, awaited or not, or of `client.messages.stream(…)`.

    `finish=False` leaves the message open for more, whatever the reason the model stopped for. `library=True` reads
    the events through the `anthropic` package's own models, at several times the CPU; `client.messages.stream(…)`
    is always read so.
    """
    return ProviderStream(source, MessagesTranslation(library=library), finish=finish)


class MessagesTranslation(Translation[Any]):
    """One message."""

    def __init__(self, *, library: bool = False) -> None:
        super().__init__()
        self._library = library
        # Tool calls that are being written, by the index of their block.
        self._calls: dict[int, str] = {}
        self._signature: str | None = None
        self._stopped = False

    def events(self, response: AsyncIterable[Any]) -> AsyncIterable[Any]:
        """The response's events, decoded here unless `library`."""
        body = body_of(response, anthropic.AsyncStream, library=self._library)
        if body is None:
            return response
        status = body.status_code
        return events(body, lambda name, data: _decode(name, data, status))

    def feed(self, event: Event) -> Iterable[p.Chunk]:
        """The chunks of one event; the events that the SDK's stream helper adds to them are passed over."""
        if event.type == "content_block_delta":
            return self._delta(event)
        if event.type == "content_block_start":
            return self._start(event)
        if event.type == "content_block_stop":
            return self._stop(event.index)
        if event.type == "message_start":
            self.usage = counts.of_messages(event.message.usage, None)
        elif event.type == "message_delta":
            self.usage = counts.of_messages(event.usage, self.usage)
            self.finish_reason = _STOP_REASONS.get(event.delta.stop_reason or "", "other")
        elif event.type == "message_stop":
            self._stopped = True
        return ()

    def failure(self, error: Exception) -> Failure | None:
        """What an exception of the SDK means."""
        if isinstance(error, anthropic.APITimeoutError):
            return Failure.TIMED_OUT
        if isinstance(error, anthropic.APIConnectionError):
            return Failure.UNREACHABLE
        if isinstance(error, anthropic.APIStatusError):
            if message_in(error.body).startswith(_TOO_LONG):
                return Failure.TOO_LONG
            # An error in the middle of a stream comes with the status of the stream, 200.
            return classify(error.status_code, *codes_in(error.body))
        return Failure.UNUSABLE if isinstance(error, anthropic.APIError) else of_transport(error)

    def end(self, finish: bool) -> list[p.Chunk]:
        """What closes the answer; only `message_stop` says that it is whole."""
        if not self._stopped:
            self.finish_reason = None
        return super().end(finish)

    def _start(self, event: RawContentBlockStartEvent) -> Iterable[p.Chunk]:
        block = event.content_block
        if block.type == "text":
            return self.parts.text(event.index, block.text)
        if block.type == "thinking":
            self._signature = block.signature or None
            return self.parts.reasoning(event.index, block.thinking)
        if block.type == "tool_use" or block.type == "server_tool_use":
            self._calls[event.index] = block.id
            executed = True if block.type == "server_tool_use" else None
            return self.parts.call(block.id, block.name, executed=executed)
        if block.type.endswith(_RESULT_SUFFIX):
            return self._result(block)
        return ()

    def _result(self, block: object) -> Iterable[p.Chunk]:
        """The result of a tool that the provider ran itself, whole."""
        call_id = getattr(block, "tool_use_id", None)
        if not isinstance(call_id, str):
            return ()
        output = to_jsonable_python(getattr(block, "content", None), fallback=str)
        return [*self.parts.end(), p.ToolOutputAvailable(call_id, output, provider_executed=True)]

    def _delta(self, event: RawContentBlockDeltaEvent) -> Iterable[p.Chunk]:
        delta = event.delta
        if delta.type == "text_delta":
            return self.parts.text(event.index, delta.text)
        if delta.type == "thinking_delta":
            return self.parts.reasoning(event.index, delta.thinking)
        if delta.type == "input_json_delta":
            return self.parts.arguments(self._calls.get(event.index, ""), delta.partial_json)
        if delta.type == "signature_delta":
            self._signature = delta.signature
        return ()

    def _stop(self, index: int) -> Iterable[p.Chunk]:
        if (call_id := self._calls.pop(index, None)) is not None:
            return self.parts.call_ready(call_id)
        signature, self._signature = self._signature, None
        return self.parts.end({"anthropic": {"signature": signature}} if signature else None)


def _decode(name: bytes, data: bytes, status: int) -> Any:
    """None for what is no event of a message."""
    if not name or name == b"ping" or not data:
        return None
    if name == b"error":
        raise agent_error(_failure_in(status, data))
    return _delta(data) or decode_fields(data)


def _failure_in(status: int, data: bytes) -> Failure:
    """What an error in the middle of a stream means; its body need not be JSON."""
    try:
        body = decode_fields(data)
    except ValueError:
        return classify(status)
    return Failure.TOO_LONG if message_in(body).startswith(_TOO_LONG) else classify(status, *codes_in(body))


def messages(prompt: Iterable[PromptMessage], *, interrupted: str = conv.INTERRUPTED) -> list[MessageParam]:
    """The conversation as `messages`: the user first, then by turns, every tool call followed by its result."""
    found: list[MessageParam] = []
    # What the user's side says next: results of tools, then what was said.
    pending: list[ContentBlockParam] = []

    for said in conv.conversation(prompt, interrupted=interrupted):
        if isinstance(said, conv.User):
            pending += [_part(item) for item in said.content]
            continue
        if pending or not found:
            found.append({"role": "user", "content": pending or [_text(conv.BEGIN)]})
        _add_assistant(found, _assistant(said))
        pending = [_tool_result(call) for call in said.calls]
    if pending:
        found.append({"role": "user", "content": pending})
    return found


def _add_assistant(found: list[MessageParam], blocks: Sequence[ContentBlockParam]) -> None:
    if found[-1]["role"] == "assistant":
        found[-1] = {"role": "assistant", "content": [*_blocks(found[-1]), *blocks]}
    else:
        found.append({"role": "assistant", "content": list(blocks)})


def _blocks(message: MessageParam) -> list[Any]:
    content = message["content"]
    return [_text(content)] if isinstance(content, str) else list(content)


def _text(text: str) -> ContentBlockParam:
    return {"type": "text", "text": text}


def _part(item: str | conv.Attachment) -> ContentBlockParam:
    if isinstance(item, str):
        return _text(item)
    if item.url.startswith("https:"):
        if item.is_image:
            return {"type": "image", "source": {"type": "url", "url": item.url}}
        if item.is_pdf:
            return {"type": "document", "source": {"type": "url", "url": item.url}}
    return _inline(item) or _text(item.mention)


def _inline(item: conv.Attachment) -> ContentBlockParam | None:
    """A file that its `data:` URL holds; None: not of a kind that can be given."""
    data = item.base64
    if data is None:
        return None
    match item.media_type:
        case "image/jpeg" | "image/png" | "image/gif" | "image/webp" as kind:
            return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
        case "application/pdf" as kind:
            return {"type": "document", "source": {"type": "base64", "media_type": kind, "data": data}}
        case _:
            return None


def _assistant(said: conv.Assistant) -> list[ContentBlockParam]:
    calls: list[ContentBlockParam] = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": dict(call.input)}
        for call in said.calls
    ]
    return [_text(said.text), *calls] if said.text else calls


def _tool_result(call: conv.Call) -> ContentBlockParam:
    return {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": call.result,
        "is_error": call.failed,
    }
