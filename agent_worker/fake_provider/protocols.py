"""The answers of three protocols as bytes: OpenAI's Chat Completions and Responses, Anthropic's Messages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import orjson

from agent_worker.fake_provider.behaviour import Fault

_CHARACTERS_PER_TOKEN: Final = 4
_TOKEN: Final = b'"\\u0000TOKEN"'
_MESSAGES: Final = {
    Fault.RATE_LIMIT: "Rate limit reached for requests",
    Fault.OVERLOADED: "The engine is currently overloaded",
    Fault.FAILED: "The server had an error while processing your request",
    Fault.STREAM_ERROR: "The server had an error while processing your request",
}


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A request, as far as it counts. `most`: tokens allowed; `usage`: whether the stream is to end with usage."""

    model: str
    text: str
    input_tokens: int
    most: int | None
    streamed: bool
    usage: bool


class Protocol(ABC):
    """One protocol: what was asked, and the bytes of its events."""

    path: ClassVar[str]
    overloaded: ClassVar[int] = 503
    limits: ClassVar[tuple[str, ...]] = ("max_tokens",)
    inputs: ClassVar[tuple[str, ...]] = ("messages",)

    def read(self, body: dict[str, Any]) -> ModelRequest:
        """What a body asks for. Raises ValueError for one that the protocol does not allow."""
        said = next((body[name] for name in self.inputs if name in body), None)
        if not isinstance(body.get("model"), str) or not isinstance(said, list | str) or not said:
            raise ValueError(f"`model` and `{self.inputs[0]}` are required")
        most = next((body[name] for name in self.limits if isinstance(body.get(name), int)), None)
        options = body.get("stream_options")
        return ModelRequest(
            body["model"], newest_text(said), max(1, len(orjson.dumps(said)) // _CHARACTERS_PER_TOKEN), most,
            body.get("stream") is True, isinstance(options, dict) and options.get("include_usage") is True,
        )  # fmt: skip

    @abstractmethod
    def begin(self, asked: ModelRequest, number: int) -> bytes:
        """What comes before the first token."""

    @abstractmethod
    def token(self, asked: ModelRequest, number: int) -> Template:
        """The event of a token."""

    @abstractmethod
    def end(self, asked: ModelRequest, number: int, text: str, tokens: int, *, cut: bool) -> bytes:
        """What comes after the last token."""

    @abstractmethod
    def whole(self, asked: ModelRequest, number: int, text: str, tokens: int, *, cut: bool) -> dict[str, Any]:
        """The answer at once."""

    @abstractmethod
    def error(self, fault: Fault) -> dict[str, Any]:
        """The body of a failure."""

    def error_event(self, fault: Fault) -> bytes:
        """The failure in the middle of a stream."""
        return event(self.error(fault))

    def status(self, fault: Fault) -> int:
        """The HTTP status of a failure."""
        return {Fault.RATE_LIMIT: 429, Fault.OVERLOADED: self.overloaded}.get(fault, 500)


class Template:
    """An event that differs in one text only: encoded once."""

    def __init__(self, event_bytes: bytes) -> None:
        self._head, _, self._tail = event_bytes.partition(_TOKEN)

    def of(self, text: str) -> bytes:
        """The event with a text."""
        return self._head + orjson.dumps(text) + self._tail


TOKEN: Final = "\0TOKEN"
"""Where a template's text goes."""


def event(data: dict[str, Any], name: str = "") -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + orjson.dumps(data) + b"\n\n"


def newest_text(said: list[Any] | str) -> str:
    """The text of the newest message of the user."""
    if isinstance(said, str):
        return said
    for item in reversed(said):
        if isinstance(item, dict) and item.get("role") == "user":
            content = item.get("content")
            if isinstance(content, str):
                return content
            parts = content if isinstance(content, list) else []
            texts = [str(part.get("text", "")) for part in parts if isinstance(part, dict)]
            return "\n".join(text for text in texts if text)
    return ""


class ChatCompletions(Protocol):
    """`POST /v1/chat/completions`."""

    path = "/v1/chat/completions"
    limits = ("max_completion_tokens", "max_tokens")

    def begin(self, asked: ModelRequest, number: int) -> bytes:
        """The role."""
        return event(self._chunk(asked, number, {"role": "assistant", "content": ""}))

    def token(self, asked: ModelRequest, number: int) -> Template:
        """A delta."""
        return Template(event(self._chunk(asked, number, {"content": TOKEN})))

    def end(self, asked: ModelRequest, number: int, text: str, tokens: int, *, cut: bool) -> bytes:
        """The finish reason, the usage where it was asked for, `[DONE]`."""
        last = event(self._chunk(asked, number, {}, "length" if cut else "stop"))
        if asked.usage:
            last += event(
                {**self._chunk(asked, number, {}), "choices": [], "usage": self._usage(asked, tokens)}
            )
        return last + b"data: [DONE]\n\n"

    def whole(self, asked: ModelRequest, number: int, text: str, tokens: int, *, cut: bool) -> dict[str, Any]:
        """A chat.completion."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "length" if cut else "stop",
        }
        return {
            "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 0, "model": asked.model,
            "choices": [choice], "usage": self._usage(asked, tokens),
        }  # fmt: skip

    def error(self, fault: Fault) -> dict[str, Any]:
        """OpenAI's error body."""
        kinds = {Fault.RATE_LIMIT: "rate_limit_exceeded", Fault.OVERLOADED: "overloaded_error"}
        kind = kinds.get(fault, "server_error")
        return {"error": {"message": _MESSAGES[fault], "type": kind, "param": None, "code": kind}}

    def _chunk(
        self, asked: ModelRequest, number: int, delta: dict[str, Any], finish: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {
            "id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 0, "model": asked.model,
            "choices": [choice],
        }  # fmt: skip

    def _usage(self, asked: ModelRequest, tokens: int) -> dict[str, Any]:
        total = asked.input_tokens + tokens
        return {"prompt_tokens": asked.input_tokens, "completion_tokens": tokens, "total_tokens": total}


class Responses(Protocol):
    """`POST /v1/responses`."""

    path = "/v1/responses"
    limits = ("max_output_tokens",)
    inputs = ("input",)

    def begin(self, asked: ModelRequest, number: int) -> bytes:
        """The response, its message and the message's text begin."""
        item = {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        part = {"type": "output_text", "text": "", "annotations": []}
        return b"".join(
            (
                self._named("response.created", 0, response=self._response(asked, number, "in_progress")),
                self._named("response.output_item.added", 1, output_index=0, item=item),
                self._named("response.content_part.added", 2, **self._at(number), part=part),
            )
        )

    def token(self, asked: ModelRequest, number: int) -> Template:
        """A delta of the text."""
        return Template(
            self._named("response.output_text.delta", 3, **self._at(number), delta=TOKEN, logprobs=[])
        )

    def end(self, asked: ModelRequest, number: int, text: str, tokens: int, *, cut: bool) -> bytes:
        """The text, its message and the response end."""
        part = {"type": "output_text", "text": text, "annotations": []}
        return b"".join(
            (
                self._named("response.output_text.done", 4, **self._at(number), text=text, logprobs=[]),
                self._named("response.content_part.done", 5, **self._at(number), part=part),
                self._named("response.output_item.done", 6, output_index=0, item=self._item(number, text)),
                self._named(
                    "response.incomplete" if cut else "response.completed", 7,
                    response=self.whole(asked, number, text, tokens, cut=cut),
                ),
            )
        )  # fmt: skip

    def whole(self, asked: ModelRequest, number: int, text: str, tokens: int, *, cut: bool) -> dict[str, Any]:
        """A finished response."""
        usage = {
            "input_tokens": asked.input_tokens, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": asked.input_tokens + tokens,
        }  # fmt: skip
        ended = self._response(asked, number, "incomplete" if cut else "completed")
        why = {"reason": "max_output_tokens"} if cut else None
        return {**ended, "output": [self._item(number, text)], "usage": usage, "incomplete_details": why}

    def error(self, fault: Fault) -> dict[str, Any]:
        """OpenAI's error body."""
        return ChatCompletions().error(fault)

    def error_event(self, fault: Fault) -> bytes:
        """The protocol's own `error` event."""
        return self._named("error", 4, code="server_error", message=_MESSAGES[fault], param=None)

    def _named(self, kind: str, sequence: int, **fields: Any) -> bytes:
        return event({"type": kind, "sequence_number": sequence, **fields}, kind)

    def _at(self, number: int) -> dict[str, Any]:
        return {"item_id": f"msg_{number}", "output_index": 0, "content_index": 0}

    def _item(self, number: int, text: str) -> dict[str, Any]:
        content = [{"type": "output_text", "text": text, "annotations": []}]
        return {
            "id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed", "content": content,
        }  # fmt: skip

    def _response(self, asked: ModelRequest, number: int, status: str) -> dict[str, Any]:
        return {
            "id": f"resp_{number}", "object": "response", "created_at": 0, "model": asked.model, "status": status,
            "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
            "incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0,
        }  # fmt: skip


class Messages(Protocol):
    """`POST /v1/messages`."""

    path = "/v1/messages"
    overloaded = 529

    def begin(self, asked: ModelRequest, number: int) -> bytes:
        """The message and its text begin."""
        message = {**self.whole(asked, number, "", 1, cut=False), "content": [], "stop_reason": None}
        block = {"type": "text", "text": ""}
        return self._named("message_start", message=message) + self._named(
            "content_block_start", index=0, content_block=block
        )

    def token(self, asked: ModelRequest, number: int) -> Template:
        """A delta of the text."""
        return Template(
            self._named("content_block_delta", index=0, delta={"type": "text_delta", "text": TOKEN})
        )

    def end(self, asked: ModelRequest, number: int, text: str, tokens: int, *, cut: bool) -> bytes:
        """The text and the message end."""
        why = {"stop_reason": "max_tokens" if cut else "end_turn", "stop_sequence": None}
        return b"".join(
            (
                self._named("content_block_stop", index=0),
                self._named("message_delta", delta=why, usage={"output_tokens": tokens}),
                self._named("message_stop"),
            )
        )

    def whole(self, asked: ModelRequest, number: int, text: str, tokens: int, *, cut: bool) -> dict[str, Any]:
        """A message."""
        return {
            "id": f"msg_{number}", "type": "message", "role": "assistant", "model": asked.model,
            "content": [{"type": "text", "text": text}], "stop_reason": "max_tokens" if cut else "end_turn",
            "stop_sequence": None, "usage": {"input_tokens": asked.input_tokens, "output_tokens": tokens},
        }  # fmt: skip

    def error(self, fault: Fault) -> dict[str, Any]:
        """Anthropic's error body."""
        kinds = {Fault.RATE_LIMIT: "rate_limit_error", Fault.OVERLOADED: "overloaded_error"}
        error = {"type": kinds.get(fault, "api_error"), "message": _MESSAGES[fault]}
        return {"type": "error", "error": error}

    def error_event(self, fault: Fault) -> bytes:
        """The protocol's own `error` event."""
        return event(self.error(fault), "error")

    def _named(self, kind: str, **fields: Any) -> bytes:
        return event({"type": kind, **fields}, kind)


PROTOCOLS: Final[dict[str, Protocol]] = {
    protocol.path: protocol for protocol in (ChatCompletions(), Responses(), Messages())
}
