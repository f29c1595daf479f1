"""What the adapters read from a provider's body, against what the provider's own library reads from the same bytes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import pairwise
from typing import Any

import anthropic
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from agent_worker.adapters import ProviderStream, anthropic_messages, openai_chat, openai_responses
from agent_worker.adapters.event_stream import MAX_PENDING_BYTES, EventStreamDecoder, ServerEvent
from agent_worker.user_code.errors import AgentError
from selfhost_transport.turns import chunks as p
from tests.adapters import frames as f
from tests.adapters.calls import Clients
from tests.adapters.provider import Answer, Frame, Provider, Then, data, named

# The bytes of a body


def _cut(body: bytes, at: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(at), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def _library_events(chunks: list[bytes]) -> Iterator[ServerEvent]:
    # Events without data are left out by both; the library keeps those that have a name.
    for event in SSEDecoder().iter_bytes(iter(chunks)):
        if event.data:
            yield (event.event or "").encode(), event.data.encode()


_lines = st.lists(
    st.one_of(
        st.sampled_from(
            ["data: x", "data:{}", "data", "event: ping", "event:a b", ": comment", "id: 7", "retry: 1"]
        ),
        st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8).map(
            lambda text: f"data: {text}"
        ),
        st.just(""),
    ),
    max_size=14,
)


@given(_lines, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 120), max_size=6))
@settings(max_examples=300, deadline=None)
def test_events_are_those_of_the_library_however_the_body_is_cut(
    lines: list[str], end: str, at: list[int]
) -> None:
    body = (end.join(lines) + end + end).encode()
    chunks = _cut(body, [min(place, len(body)) for place in at])
    decoder = EventStreamDecoder()
    ours = [event for chunk in chunks for event in decoder.feed(chunk) if event[1]]
    # A CR at the very end may be half of a line's end: it is decided by the next chunk.
    ours += [event for event in decoder.feed(b":\n") if event[1]]
    assert ours == list(_library_events(chunks))


def test_an_event_without_its_end_is_not_kept_without_bound() -> None:
    decoder = EventStreamDecoder()
    with pytest.raises(AgentError, match="could not be used"):
        for _ in range(MAX_PENDING_BYTES // (1 << 20) + 2):
            decoder.feed(b"x" * (1 << 20))


# Whole answers

_RECORDED: dict[str, list[tuple[str, list[Frame]]]] = {
    "chat": [
        ("text after reasoning", [
            f.chat(role="assistant", content=""), f.chat(reasoning_content="let me "), f.chat(reasoning="see"),
            f.chat(content="Grüße \U0001f600"), f.chat(content="."), f.chat("stop"), f.chat_usage(), f.DONE,
        ]),
        ("two calls side by side", [
            f.chat_call(0, "", "c0", "add"), f.chat_call(0, '{"a":'), f.chat_call(1, "", "c1", "now"),
            f.chat_call(0, "1}"), f.chat("tool_calls"), f.DONE,
        ]),
        ("a refusal", [f.chat(refusal="I cannot "), f.chat(refusal="do that"), f.chat("stop"), f.DONE]),
        ("a second choice", [
            data({"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "yes"}}]}),
            f.chat("stop"), f.DONE,
        ]),
        ("a dialect: no delta, content null, an unknown member, an unknown reason", [
            data({"choices": [{"index": 0, "delta": {"content": None, "role": "assistant", "odd": [1]}}], "x": {}}),
            f.chat(content="a"), data({"choices": [{"index": 0, "finish_reason": "eos"}]}), f.DONE,
        ]),
        ("a dialect: choices null, an index of another kind", [
            data({"choices": None}), data({"choices": [{"index": 0, "delta": {"content": "a", "tool_calls": None}}]}),
            f.chat("stop"), f.DONE,
        ]),
        ("an error in the middle", [f.chat(content="x"), data({"error": {"message": "m", "type": "server_error"}})]),
        ("an error that is a text", [f.chat(content="x"), data({"error": "overloaded"})]),
        ("usage with every event, and what was cached", [
            data({"choices": [{"index": 0, "delta": {"content": "x"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}),
            f.chat("stop"),
            data({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9,
                  "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1}}}), f.DONE,
        ]),
        ("audio and logprobs, which are not read", [
            data({"choices": [{"index": 0, "delta": {"content": "x", "audio": {"id": "a", "data": "AA=="}},
                  "logprobs": {"content": [{"token": "x", "logprob": -0.1, "bytes": [120], "top_logprobs": []}]}}]}),
            f.chat("stop"), f.DONE,
        ]),
        ("no end", [f.chat(content="x")]),
        ("not JSON", [f.chat(content="x"), b"data: {oops\n\n"]),
        ("comments and other fields", [b": ping\n\n", b"id: 1\nretry: 5\n" + f.chat(content="x"), f.chat("stop"), f.DONE]),
    ],
    "responses": [
        ("reasoning, text, call", [
            f.response_state("created", "in_progress"),
            f.response("output_item.added", output_index=0, item={"type": "reasoning", "id": "rs", "summary": []}),
            f.response("reasoning_summary_text.delta", item_id="rs", output_index=0, summary_index=0, delta="one"),
            f.response("reasoning_text.delta", item_id="rs", output_index=0, content_index=0, delta="two"),
            f.response_text("Hé"), f.response("refusal.delta", item_id="m", output_index=1, content_index=1, delta="no"),
            f.response("output_item.added", output_index=2, item={
                "type": "function_call", "id": "fc", "call_id": "c1", "name": "add", "arguments": "",
            }),
            f.response("function_call_arguments.delta", item_id="fc", output_index=2, delta='{"a":1}'),
            f.response("of_the_future", anything=1), f.response("future.delta", delta="?", item_id="x"),
            f.response("output_item.done", output_index=2, item={
                "type": "function_call", "id": "fc", "call_id": "c1", "name": "add", "arguments": '{"a":1}',
            }),
            f.response_state("completed", "completed"),
        ]),
        ("annotations, parts and a tool of the provider", [
            f.response("in_progress", response={"id": "resp_1", "object": "response", "created_at": 1, "model": "m",
                       "output": [], "status": "in_progress"}),
            f.response("output_item.added", output_index=0, item={"type": "web_search_call", "id": "ws", "status": "searching"}),
            f.response("web_search_call.searching", output_index=0, item_id="ws"),
            f.response("output_item.done", output_index=0, item={"type": "web_search_call", "id": "ws", "status": "completed",
                       "action": {"type": "search", "query": "x"}}),
            f.response("content_part.added", item_id="msg_1", output_index=1, content_index=0,
                       part={"type": "output_text", "text": "", "annotations": []}),
            f.response_text("Grüße "), f.response_text("\U0001f600"),
            f.response("output_text.annotation.added", item_id="msg_1", output_index=1, content_index=0, annotation_index=0,
                       annotation={"type": "url_citation", "url": "https://x", "title": "X", "start_index": 0, "end_index": 1}),
            f.response("output_text.done", item_id="msg_1", output_index=1, content_index=0, text="Grüße", logprobs=[]),
            f.response_state("completed", "completed", usage={
                "input_tokens": 9, "output_tokens": 5, "total_tokens": 14, "input_tokens_details": {"cached_tokens": 3},
                "output_tokens_details": {"reasoning_tokens": 2}}),
        ]),
        ("cut by its limit", [
            f.response_text("x"),
            f.response_state("incomplete", "incomplete", incomplete_details={"reason": "max_output_tokens"}),
        ]),
        ("failed", [
            f.response_text("x"),
            f.response_state("failed", "failed", error={"code": "rate_limit_exceeded", "message": "m"}),
        ]),
        ("an error event", [
            f.response_text("x"),
            named({"type": "error", "code": "server_error", "message": "m", "sequence_number": 2}),
        ]),
        ("no end", [f.response_text("x")]),
    ],
    "claude": [
        ("thinking, text, tool", [
            f.claude_start(), named({"type": "ping"}), f.block(0, type="thinking", thinking="", signature=""),
            f.delta(0, "thinking_delta", thinking="hm"), f.delta(0, "signature_delta", signature="sig"), f.block_end(0),
            f.block(1, type="text", text=""), f.delta(1, "text_delta", text="Héllo"),
            f.delta(1, "citations_delta", citation={"type": "char_location"}), f.block_end(1),
            f.block(2, type="tool_use", id="t1", name="add", input={}), f.delta(2, "input_json_delta", partial_json='{"a": 1}'),
            f.block_end(2), *f.claude_end("tool_use"),
        ]),
        ("a tool of the provider", [
            f.claude_start(), f.block(0, type="server_tool_use", id="s1", name="web_search", input={}),
            f.delta(0, "input_json_delta", partial_json='{"query":"x"}'), f.block_end(0),
            f.block(1, type="web_search_tool_result", tool_use_id="s1", content=[
                {"type": "web_search_result", "url": "https://x", "title": "X", "encrypted_content": "e", "page_age": None},
            ]), f.block_end(1), *f.claude_end("end_turn"),
        ]),
        ("refused", [
            f.claude_start(), f.block(0, type="text", text="I "), f.delta(0, "text_delta", text="cannot"), f.block_end(0),
            *f.claude_end("refusal"),
        ]),
        ("usage with what was cached, redacted thinking, a pause", [
            named({"type": "message_start", "message": {
                "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
                "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1, "cache_read_input_tokens": 40,
                                                 "cache_creation_input_tokens": 2}}}),
            f.block(0, type="redacted_thinking", data="xyz"), f.block_end(0),
            f.block(1, type="text", text=""), f.delta(1, "text_delta", text="Grüße \U0001f600"), f.block_end(1),
            *f.claude_end("pause_turn"),
        ]),
        ("an event of the future", [f.claude_start(), named({"type": "of_the_future", "x": 1}), *f.claude_end("end_turn")]),
        ("an event without a name", [f.claude_start(), data({"type": "message_stop"}), f.claude_end("end_turn")[0]]),
        ("overloaded", [f.claude_start(), named({"type": "error", "error": {"type": "overloaded_error", "message": "m"}})]),
        ("an error that is no JSON", [f.claude_start(), b"event: error\ndata: oops\n\n"]),
        ("no end", [f.claude_start(), f.claude_end("end_turn")[0]]),
    ],
}  # fmt: skip
_CASES = [(kind, name, frames) for kind, cases in _RECORDED.items() for name, frames in cases]


def _start(kind: str, clients: Clients, library: bool) -> ProviderStream[Any]:
    if kind == "chat":
        call: Any = clients.openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        return openai_chat.stream(call, library=library)
    if kind == "responses":
        call = clients.openai.responses.create(model="m", input="hi", stream=True)
        return openai_responses.stream(call, library=library)
    call = clients.anthropic.messages.create(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    return anthropic_messages.stream(call, library=library)


async def _outcome(stream: ProviderStream[Any]) -> tuple[list[p.Chunk], object]:
    chunks: list[p.Chunk] = []
    try:
        async for chunk in stream:
            chunks += [chunk]
    except AgentError as error:
        return chunks, error.info
    return chunks, (stream.finish_reason, stream.tool_calls, stream.usage)


@pytest.mark.parametrize(
    ("kind", "name", "frames"), _CASES, ids=[f"{kind}: {name}" for kind, name, _ in _CASES]
)
async def test_an_answer_reads_as_through_the_library(
    kind: str, name: str, frames: list[Frame], provider: Provider, clients: Clients
) -> None:
    body = b"".join(frames)
    cuts = random.Random(name)
    chunks = _cut(body, [cuts.randrange(len(body)) for _ in range(9)])
    provider.answers = [Answer([chunk for chunk in chunks if chunk])]
    lean = await _outcome(_start(kind, clients, library=False))
    library = await _outcome(_start(kind, clients, library=True))
    assert lean == library


@pytest.mark.parametrize(
    ("kind", "name", "frames"), _CASES, ids=[f"{kind}: {name}" for kind, name, _ in _CASES]
)
async def test_an_answer_that_breaks_off_reads_as_through_the_library(
    kind: str, name: str, frames: list[Frame], provider: Provider, clients: Clients
) -> None:
    text = b"".join(frames).decode()
    places = random.Random(name)
    for then in (Then.END, Then.CUT, Then.END, Then.CUT):
        # Between characters: inside of one the library gives up in another way than this does.
        body = text[: places.randrange(1, len(text))].encode()
        provider.answers = [Answer([body], then)]
        lean = await _outcome(_start(kind, clients, library=False))
        library = await _outcome(_start(kind, clients, library=True))
        assert lean == library, body


@pytest.mark.parametrize("kind", _RECORDED)
async def test_an_answer_that_comes_byte_by_byte(kind: str, provider: Provider, clients: Clients) -> None:
    _, frames = _RECORDED[kind][0]
    body = b"".join(frames)
    provider.answers = [Answer(frames), Answer([body[at : at + 1] for at in range(len(body))])]
    at_once = await _outcome(_start(kind, clients, library=False))
    assert await _outcome(_start(kind, clients, library=False)) == at_once


async def test_the_connection_is_used_again_after_the_end_of_an_answer(
    provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer([f.chat(content="x"), f.chat("stop"), f.DONE])]
    for _ in range(2):
        await _outcome(_start("chat", clients, library=False))
    first, second = await provider.exchange(0), await provider.exchange(1)
    assert first.peer == second.peer


async def test_a_server_that_leaves_the_body_open_after_the_end_holds_no_one_up(
    provider: Provider, clients: Clients
) -> None:
    provider.answers = [Answer([f.chat(content="x"), f.chat("stop"), f.DONE], Then.HANG)]
    async with asyncio.timeout(5):
        chunks, _ = await _outcome(_start("chat", clients, library=False))
    assert chunks[-1] == p.Finish("stop")
    await (await provider.exchange()).closed.wait()


class _Framed:
    """In the place of Bedrock's decoder: what is on the wire is no server-sent event."""

    async def aiter_bytes(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for event in anthropic._streaming.SSEDecoder().aiter_bytes(_unframed(chunks)):
            yield event


async def _unframed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        yield chunk.swapcase()


class _Bedrock(anthropic.AsyncAnthropic):
    def _make_sse_decoder(self) -> Any:
        return _Framed()


async def test_a_client_with_frames_of_its_own_is_read_through_its_library(provider: Provider) -> None:
    body = b"".join(
        [f.claude_start(), f.block(0, type="text", text="Hi"), f.block_end(0), *f.claude_end("end_turn")]
    )
    kind = "content-type: application/vnd.amazon.eventstream"
    provider.answers = [Answer([body.swapcase()], headers=[kind])]
    async with _Bedrock(base_url=provider.url, api_key="sk-test", max_retries=0) as client:
        asked: Any = [{"role": "user", "content": "hi"}]
        call = client.messages.create(model="m", max_tokens=9, messages=asked, stream=True)
        chunks, _ = await _outcome(anthropic_messages.stream(call))
    assert chunks == [
        p.TextStart("text-0"), p.TextDelta("text-0", "Hi"), p.TextEnd("text-0"), p.FinishStep(), p.Finish("stop"),
    ]  # fmt: skip


async def test_azures_client(provider: Provider) -> None:
    provider.answers = [
        Answer(
            [data({"choices": [], "prompt_filter_results": []}), f.chat(content="Hi"), f.chat("stop"), f.DONE]
        )
    ]
    async with openai.AsyncAzureOpenAI(
        azure_endpoint=provider.url, api_key="secret", api_version="2025-04-01-preview", max_retries=0
    ) as client:
        asked: Any = [{"role": "user", "content": "hi"}]
        call = client.chat.completions.create(model="deployed", messages=asked, stream=True)
        chunks, _ = await _outcome(openai_chat.stream(call))
    assert p.TextDelta("text-0", "Hi") in chunks
    path = (await provider.exchange()).path
    assert path.startswith("/openai/deployments/deployed/chat/completions?api-version=")
