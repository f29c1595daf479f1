"""The events of each provider's stream, in the shapes the providers document."""

from __future__ import annotations

from typing import Any

from tests.adapters.provider import Frame, data, named

DONE = data("[DONE]")


def chat(finish: str | None = None, **delta: Any) -> Frame:
    """One chunk of a chat completion."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return data({**_CHAT, "choices": [choice]})


def chat_call(index: int, arguments: str, call_id: str | None = None, name: str | None = None) -> Frame:
    """One chunk of a tool call."""
    function: dict[str, Any] = {"arguments": arguments}
    call: dict[str, Any] = {"index": index, "function": function}
    if call_id is not None:
        call |= {"id": call_id, "type": "function"}
        function["name"] = name
    return chat(tool_calls=[call])


def chat_usage() -> Frame:
    """The chunk without choices that `include_usage` adds."""
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return data({**_CHAT, "choices": [], "usage": usage})


_CHAT = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


def response(kind: str, **fields: Any) -> Frame:
    """One event of a response."""
    return named({"type": f"response.{kind}", "sequence_number": 1, **fields})


def response_state(kind: str, status: str, **fields: Any) -> Frame:
    """An event that carries the whole response."""
    body = {
        "id": "resp_1", "object": "response", "created_at": 1, "model": "m", "output": [], "status": status,
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
        "incomplete_details": None, **fields,
    }  # fmt: skip
    return response(kind, response=body)


def response_text(text: str) -> Frame:
    """A chunk of a response's text."""
    return response(
        "output_text.delta", item_id="msg_1", output_index=1, content_index=0, delta=text, logprobs=[]
    )


def claude_start() -> Frame:
    """The first event of a message."""
    usage = {"input_tokens": 3, "output_tokens": 1}
    message: dict[str, Any] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage,
        "stop_reason": None, "stop_sequence": None,
    }  # fmt: skip
    return named({"type": "message_start", "message": message})


def block(index: int, **content_block: Any) -> Frame:
    """The start of a content block."""
    return named({"type": "content_block_start", "index": index, "content_block": content_block})


def delta(index: int, kind: str, **fields: Any) -> Frame:
    """A chunk of a content block."""
    return named({"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}})


def block_end(index: int) -> Frame:
    """The end of a content block."""
    return named({"type": "content_block_stop", "index": index})


def claude_end(stop_reason: str) -> list[Frame]:
    """The last events of a message."""
    change = {"stop_reason": stop_reason, "stop_sequence": None}
    return [
        named({"type": "message_delta", "delta": change, "usage": {"output_tokens": 9}}),
        named({"type": "message_stop"}),
    ]
