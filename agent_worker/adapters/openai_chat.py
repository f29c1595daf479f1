"""OpenAI Chat Completions, and the many servers that speak it (vLLM, Ollama, LiteLLM, DeepSeek, OpenRouter).

prompt = await turn.conversation.messages()
await turn.pipe(stream(client.chat.completions.create(model=…, messages=messages(prompt), stream=True)))
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionChunk,
    ChatCompletionContentPartParam,
    ChatCompletionMessageParam,
)
from openai.types.chat.chat_completion_chunk import ChoiceDelta, ChoiceDeltaToolCall

from agent_worker.adapters import prompt as conv
from agent_worker.adapters.failures import Failure
from agent_worker.adapters.openai_failures import failure_of
from agent_worker.adapters.stream import TOOL_CALLS, ProviderStream, Source, Translation
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.prompt import PromptMessage
from selfhost_transport.turns.values import to_text

_FINISH_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": TOOL_CALLS,
    "function_call": TOOL_CALLS,
}
# Not in OpenAI's own protocol; servers of open models disagree on the name.
_REASONING_FIELDS: Final = ("reasoning_content", "reasoning")


def stream(
    source: Source[ChatCompletionChunk], *, finish: bool = True
) -> ProviderStream[ChatCompletionChunk]:
    """The chunks of `client.chat.completions.create(…, stream=True)`, awaited or not; first choice only.

    `finish=False` leaves the message open for more, whatever the reason the model stopped for.
    """
    return ProviderStream(source, ChatTranslation(), finish=finish)


class ChatTranslation(Translation[ChatCompletionChunk]):
    """One Chat Completions response."""

    def __init__(self) -> None:
        super().__init__()
        # Only the first delta of a call has its id.
        self._ids: dict[int, str] = {}

    def feed(self, event: ChatCompletionChunk) -> Iterator[p.Chunk]:
        """The chunks of one event."""
        for choice in event.choices or ():
            if choice.index != 0:
                continue
            if choice.delta is not None:  # some servers leave it out of the last event
                yield from self._delta(choice.delta)
            if choice.finish_reason is not None:
                self.finish_reason = _FINISH_REASONS.get(choice.finish_reason, "other")

    def failure(self, error: Exception) -> Failure | None:
        """What an exception of the SDK means."""
        return failure_of(error)

    def _delta(self, delta: ChoiceDelta) -> Iterator[p.Chunk]:
        for name in _REASONING_FIELDS:
            thought = getattr(delta, name, None)
            if isinstance(thought, str) and thought:
                yield from self.parts.reasoning(0, thought)
                break
        yield from self.parts.text(0, delta.content or "")
        yield from self.parts.text("refusal", delta.refusal or "")
        for call in delta.tool_calls or ():
            yield from self._call(call)

    def _call(self, call: ChoiceDeltaToolCall) -> Iterator[p.Chunk]:
        function = call.function
        call_id = self._ids.get(call.index)
        if call_id is None:
            call_id = self._ids[call.index] = call.id or f"call-{call.index}"
            yield from self.parts.call(call_id, (function.name if function else None) or "")
        if function is not None:
            yield from self.parts.arguments(call_id, function.arguments or "")


def messages(
    prompt: Iterable[PromptMessage], *, interrupted: str = conv.INTERRUPTED
) -> list[ChatCompletionMessageParam]:
    """The conversation as `messages`; put your system message in front. Every tool call has its result."""
    found: list[ChatCompletionMessageParam] = []
    for said in conv.conversation(prompt, interrupted=interrupted):
        if isinstance(said, conv.User):
            found.append({"role": "user", "content": _content(said)})
        else:
            found.append(_assistant(said))
            found += [{"role": "tool", "tool_call_id": c.id, "content": c.result} for c in said.calls]
    return found


def _content(said: conv.User) -> str | list[ChatCompletionContentPartParam]:
    """Plain text where it is nothing else: not every server takes a list."""
    if all(isinstance(item, str) for item in said.content):
        return "\n\n".join(str(item) for item in said.content)
    return [_part(item) for item in said.content]


def _part(item: str | conv.Attachment) -> ChatCompletionContentPartParam:
    if isinstance(item, conv.Attachment) and item.is_image:
        return {"type": "image_url", "image_url": {"url": item.url}}
    return {"type": "text", "text": item if isinstance(item, str) else item.mention}


def _assistant(said: conv.Assistant) -> ChatCompletionAssistantMessageParam:
    message: ChatCompletionAssistantMessageParam = {"role": "assistant", "content": said.text or None}
    if said.calls:
        message["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": to_text(c.input)}}
            for c in said.calls
        ]
    return message
