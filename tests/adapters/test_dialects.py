"""What servers of open models send as Chat Completions: the same answer, by the adapter and through the library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from agent_worker.adapters import Failure, openai_chat
from agent_worker.output.usage import Usage
from agent_worker.user_code.errors import AgentError
from selfhost_transport.turns import chunks as p
from tests.adapters.calls import Clients
from tests.adapters.provider import Answer, Frame, Provider, data

DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> Frame:
    """One event; `delta` None: a server that leaves it out of the last one."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if delta is not None:
        choice["delta"] = delta
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "qwen3"}
    return data({**head, "choices": [choice], **more})


def call(call_id: str, name: str, arguments: object, **more: Any) -> dict[str, Any]:
    """A delta with a whole call."""
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"id": call_id, "type": "function", "function": function, **more}]}


def usage(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """What a server counts."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **more,
    }


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server sends, and what is to become of it."""

    name: str
    frames: Sequence[Frame]
    text: str = ""
    reasoning: str = ""
    calls: Sequence[tuple[str, str, dict[str, Any]]] = ()
    finish_reason: str = "stop"
    usage: Usage | None = None


DIALECTS = [
    Dialect(
        "vLLM: reasoning_content, a stop_reason, usage with every chunk",
        [
            chunk({"role": "assistant", "content": ""}, logprobs=None, usage=usage(9, 0)),
            chunk({"reasoning_content": "Hm, "}, usage=usage(9, 1)),
            chunk({"reasoning_content": "bikes."}, usage=usage(9, 2)),
            chunk({"content": "They "}, usage=usage(9, 3)),
            data({"choices": [{"index": 0, "delta": {"content": "roll."}, "logprobs": None, "finish_reason": "stop",
                               "stop_reason": 151645, "token_ids": None}], "usage": usage(9, 4)}),
            data({"choices": [], "usage": usage(9, 4, prompt_tokens_details=None)}), DONE,
        ],
        text="They roll.", reasoning="Hm, bikes.", usage=Usage(9, 4),
    ),
    Dialect(
        "vLLM: a call whose name and arguments come apart",
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"tool_calls": [{"id": "chatcmpl-tool-1", "type": "function", "index": 0, "function": {"name": "add"}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": '}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}),
            chunk({"content": ""}, "tool_calls", stop_reason=None), DONE,
        ],
        calls=[("chatcmpl-tool-1", "add", {"a": 1})], finish_reason="tool-calls",
    ),
    Dialect(
        "Ollama: reasoning, no usage, no role after the first",
        [
            chunk({"role": "assistant", "content": "", "reasoning": "Hm."}, system_fingerprint="fp_ollama"),
            chunk({"role": "assistant", "content": "Yes"}, system_fingerprint="fp_ollama"),
            chunk({"role": "assistant", "content": ""}, "stop", system_fingerprint="fp_ollama"), DONE,
        ],
        text="Yes", reasoning="Hm.",
    ),
    Dialect(
        "Ollama: every call whole, all of them with index 0, and `stop`",
        [
            chunk({"role": "assistant", "content": "", **call("call_a", "add", '{"a":1}', index=0)}),
            chunk({"role": "assistant", "content": "", **call("call_b", "now", "{}", index=0)}),
            chunk({"role": "assistant", "content": ""}, "stop"), DONE,
        ],
        calls=[("call_a", "add", {"a": 1}), ("call_b", "now", {})], finish_reason="tool-calls",
    ),
    Dialect(
        "llama.cpp: content null, timings, usage beside the last choice",
        [
            chunk({"role": "assistant", "content": None}),
            chunk({"reasoning_content": "Hm."}), chunk({"content": "Grüße"}),
            chunk({}, "length", usage=usage(3, 2), timings={"prompt_n": 3, "predicted_per_second": 90.5}), DONE,
        ],
        text="Grüße", reasoning="Hm.", finish_reason="length", usage=Usage(3, 2),
    ),
    Dialect(
        "llama.cpp: no [DONE], an empty finish_reason until the last",
        [chunk({"content": "a"}, ""), chunk({"content": "b"}, ""), chunk(None, "stop")],
        text="ab",
    ),
    Dialect(
        "without an index, and arguments that are an object",
        [chunk(call("c0", "add", {"a": 1})), chunk(call("c1", "now", {})), chunk({}, "tool_call"), DONE],
        calls=[("c0", "add", {"a": 1}), ("c1", "now", {})], finish_reason="tool-calls",
    ),
    Dialect(
        "Azure: an event about the prompt without choices, filters beside the text",
        [
            data({"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]}),
            chunk({"content": "x"}, content_filter_results={"hate": {"filtered": False}}),
            chunk({}, "content_filter"), DONE,
        ],
        text="x", finish_reason="content-filter",
    ),
    Dialect(
        "DeepSeek and OpenRouter: comments, both fields of reasoning, cached tokens",
        [
            b": keep-alive\n\n", b": OPENROUTER PROCESSING\n\n",
            chunk({"content": None, "reasoning_content": "Hm.", "reasoning": "Hm.", "reasoning_details": [{"type": "x"}]}),
            chunk({"content": "x", "reasoning_content": None}),
            chunk({"content": ""}, "stop", usage=usage(
                7, 5, prompt_tokens_details={"cached_tokens": 4}, completion_tokens_details={"reasoning_tokens": 2})), DONE,
        ],
        text="x", reasoning="Hm.", usage=Usage(7, 5, 4, 2),
    ),
    Dialect(
        "Mistral: blocks of thinking and of text",
        [
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]}),
            chunk({"content": [{"type": "text", "text": "a"}]}), chunk({"content": "b"}),
            chunk({"content": ""}, "model_length"), DONE,
        ],
        text="ab", reasoning="Hm.", finish_reason="length",
    ),
    Dialect("TGI: a reason of the model's", [chunk({"content": "x"}), chunk({"content": ""}, "eos_token"), DONE], text="x"),
    Dialect(
        "a reason that no one knows",
        [chunk({"content": "x"}), chunk({}, "repetition"), DONE], text="x", finish_reason="other",
    ),
]  # fmt: skip


def ask(clients: Clients, *, library: bool) -> Any:
    """The model, once."""
    asked: Any = [{"role": "user", "content": "hi"}]
    made = clients.openai.chat.completions.create(model="m", messages=asked, stream=True)
    return openai_chat.stream(made, library=library)


@pytest.mark.parametrize("library", [False, True], ids=["adapter", "library"])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_a_dialect_is_the_answer_that_it_means(
    dialect: Dialect, library: bool, provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer(dialect.frames)]
    stream = ask(clients, library=library)
    chunks = [chunk async for chunk in stream]
    assert "".join(c.delta for c in chunks if isinstance(c, p.TextDelta)) == dialect.text
    assert "".join(c.delta for c in chunks if isinstance(c, p.ReasoningDelta)) == dialect.reasoning
    made = [(ready.tool_call_id, ready.tool_name, ready.input) for ready in stream.tool_calls]
    assert made == list(dialect.calls)
    assert (stream.finish_reason, stream.usage) == (dialect.finish_reason, dialect.usage)
    # With calls to answer the message stays open.
    ended = p.FinishStep() if dialect.calls else p.Finish(dialect.finish_reason)
    assert chunks[-1] == ended


BROKEN = [
    ("OpenRouter: an error beside the choices",
     chunk({"content": ""}, "error", error={"code": 502, "message": "upstream sk-live"}), Failure.FAILED),
    ("a reason that is an error", chunk({"content": ""}, "error"), Failure.FAILED),
    ("vLLM: the request was aborted", chunk({"content": ""}, "abort"), Failure.INCOMPLETE),
    ("DeepSeek: no room", chunk({"content": ""}, "insufficient_system_resource"), Failure.OVERLOADED),
    ("llama.cpp: an error with a number as code",
     data({"error": {"code": 500, "message": "context shift is disabled", "type": "server_error"}}), Failure.FAILED),
    ("vLLM: an error as the event itself",
     data({"object": "error", "message": "boom", "type": "BadRequestError", "param": None, "code": 400}), Failure.FAILED),
    ("Ollama: an error that is a text", data({"error": "model runner has unexpectedly stopped"}), Failure.FAILED),
    ("LM Studio: an event named error",
     b'event: error\ndata: {"error": {"message": "The model has crashed"}}\n\n', Failure.FAILED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "expected"), [row[1:] for row in BROKEN], ids=[name for name, *_ in BROKEN]
)
async def test_an_answer_that_its_server_gave_up_is_no_whole_answer(
    event: Frame, expected: Failure, provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer([chunk({"content": "so far"}), event, DONE])]
    said: list[p.Chunk] = []
    with pytest.raises(AgentError) as caught:
        async for one in ask(clients, library=False):
            said += [one]
    assert p.TextDelta("text-0", "so far") in said
    assert (caught.value.info.status_code, caught.value.info.message) == expected.value[:2]
