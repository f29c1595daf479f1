"""OpenAI Chat Completions, and the many servers that speak it (vLLM, Ollama, LiteLLM, DeepSeek, OpenRouter).

prompt = await turn.conversation.messages()
await turn.pipe(stream(client.chat.completions.create(model=…, messages=messages(prompt), stream=True)))
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator
from typing import Any, Final, TypeAlias, cast

import msgspec
import openai
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionChunk,
    ChatCompletionContentPartParam,
    ChatCompletionMessageParam,
)
from openai.types.chat.chat_completion_chunk import ChoiceDelta, ChoiceDeltaToolCall

from agent_worker.adapters import counts
from agent_worker.adapters import prompt as conv
from agent_worker.adapters.failures import Failure, agent_error
from agent_worker.adapters.lean import body_of, decode_fields, decoder_of, events
from agent_worker.adapters.openai_failures import failure_of, raise_error_in
from agent_worker.adapters.stream import TOOL_CALLS, ProviderStream, Source, Translation
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.prompt import PromptMessage
from selfhost_transport.turns.values import carried, to_text

_FINISH_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": TOOL_CALLS,
    "function_call": TOOL_CALLS,
    # Servers of open models have words of their own, or of the model's.
    "end_turn": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "tool_call": TOOL_CALLS,
}
# Said in the place of an error: what has come of the answer is not the whole.
_BROKEN_OFF: Final = {
    "error": Failure.FAILED,
    "abort": Failure.INCOMPLETE,
    "insufficient_system_resource": Failure.OVERLOADED,
}
# Not in OpenAI's own protocol; servers of open models disagree on the name.
_REASONING_FIELDS: Final = ("reasoning_content", "reasoning")


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct, gc=False):
    index: int
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    """A ChatCompletionChunk, as far as it is read here."""

    choices: list[_Choice]
    usage: Any = None
    error: Any = None


_chunk = decoder_of(_Chunk)

Event: TypeAlias = ChatCompletionChunk | _Chunk


def stream(
    source: Source[ChatCompletionChunk], *, finish: bool = True, library: bool = False
) -> ProviderStream[Event]:
    """The chunks of `client.chat.completions.create(…, stream=True)`, awaited or not; first choice only.

    `finish=False` leaves the message open for more, whatever the reason the model stopped for. `library=True` reads
    the events through the `openai` package's own models, at several times the CPU.
    """
    return ProviderStream[Event](source, ChatTranslation(library=library), finish=finish)


class ChatTranslation(Translation[Event]):
    """One Chat Completions response."""

    def __init__(self, *, library: bool = False) -> None:
        super().__init__()
        self._library = library
        # By index, the call that is being written; only its first delta has its id.
        self._ids: dict[int, str] = {}

    def events(self, response: AsyncIterable[Event]) -> AsyncIterable[Event]:
        """The response's events, decoded here unless `library`."""
        body = body_of(response, openai.AsyncStream, library=self._library)
        if body is None:
            return response
        request = body.request

        def decode(_name: bytes, data: bytes) -> Event:
            # An unexpected shape is an error, or a server's own dialect.
            chunk: Any = _chunk(data) or decode_fields(data)
            if chunk.error or getattr(chunk, "object", None) == "error":
                raise_error_in(chunk.error or chunk, request)
            event: Event = chunk
            return event

        return events(body, decode)

    def feed(self, event: Event) -> Iterator[p.Chunk]:
        """The chunks of one event."""
        if event.usage is not None:
            # Some servers repeat it with every chunk, each time for everything until then.
            self.usage = counts.of_chat(event.usage)
        for choice in event.choices or ():
            if choice.index:  # some servers leave it out
                continue
            if choice.delta is not None:  # some servers leave it out of the last event
                yield from self._delta(choice.delta)
            if choice.finish_reason:  # some send '' until there is one
                self._finished(choice.finish_reason)

    def failure(self, error: Exception) -> Failure | None:
        """What an exception of the SDK means."""
        return failure_of(error)

    def _finished(self, reason: str) -> None:
        if reason in _BROKEN_OFF:
            raise agent_error(_BROKEN_OFF[reason])
        self.finish_reason = _FINISH_REASONS.get(reason, "other")

    def _delta(self, delta: ChoiceDelta | _Delta) -> Iterator[p.Chunk]:
        if isinstance(delta.content, list):
            yield from self._blocks(delta.content)
            return
        for name in _REASONING_FIELDS:
            thought = getattr(delta, name, None)
            if isinstance(thought, str) and thought:
                yield from self.parts.reasoning(0, thought)
                break
        yield from self.parts.text(0, delta.content or "")
        yield from self.parts.text("refusal", delta.refusal or "")
        for call in delta.tool_calls or ():
            yield from self._call(call)

    def _call(self, call: ChoiceDeltaToolCall | _Call) -> Iterator[p.Chunk]:
        function = call.function
        index = self._index(call)
        name = (function.name if function else None) or ""
        call_id = self._ids.get(index)
        # Some servers send every call with index 0: another id with a name is another call.
        if call_id is None or (name and call.id and call.id != call_id):
            call_id = self._ids[index] = call.id or f"call-{index}"
            yield from self.parts.call(call_id, name)
        if function is not None:
            given: object = function.arguments or ""
            text = given if isinstance(given, str) else to_text(carried(given, "arguments"))
            yield from self.parts.arguments(call_id, text)

    def _index(self, call: ChoiceDeltaToolCall | _Call) -> int:
        """Which call it is; servers that leave the index out send each call whole, or its id with every delta."""
        index: object = call.index
        if isinstance(index, int):
            return index
        known = next((number for number, call_id in self._ids.items() if call_id == call.id), None)
        return len(self._ids) if known is None else known

    def _blocks(self, content: list[Any]) -> Iterator[p.Chunk]:
        """A list of blocks where others send a text: `thinking`, which is one too, and `text`."""
        for block in content:
            kind, inner = counts.member(block, "type"), counts.member(block, "thinking")
            if kind == "thinking" and isinstance(inner, list):
                said = "".join(str(counts.member(each, "text") or "") for each in inner)
                yield from self.parts.reasoning(0, said)
            elif kind == "text":
                yield from self.parts.text(0, str(counts.member(block, "text") or ""))

    def end(self, finish: bool) -> list[p.Chunk]:
        """What closes the answer. Servers that say `stop` after calls, and not `tool_calls`, wait for results all the same."""
        closed = self.parts.end_all() if self.finish_reason is not None else []
        if self.parts.calls and self.finish_reason in ("stop", "other"):
            self.finish_reason = TOOL_CALLS
        return [*closed, *super().end(finish)]


def messages(
    prompt: Iterable[PromptMessage], *, interrupted: str = conv.INTERRUPTED
) -> list[ChatCompletionMessageParam]:
    """The conversation as `messages`; put your system message in front. Every tool call has its result."""
    found: list[ChatCompletionMessageParam] = []
    for said in conv.conversation(prompt, interrupted=interrupted):
        if isinstance(said, conv.User):
            found.append({"role": "user", "content": said.written(_part)})
        else:
            found.append(_assistant(said))
            found += [{"role": "tool", "tool_call_id": c.id, "content": c.result} for c in said.calls]
    return found


def _part(item: str | conv.Attachment) -> ChatCompletionContentPartParam:
    return cast(ChatCompletionContentPartParam, conv.chat_part(item))


def _assistant(said: conv.Assistant) -> ChatCompletionAssistantMessageParam:
    message: ChatCompletionAssistantMessageParam = {"role": "assistant", "content": said.text or None}
    if said.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": to_text(c.input)}}
            for c in said.calls
        ]
    return message
