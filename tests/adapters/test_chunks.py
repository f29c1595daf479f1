"""Each provider's stream as chunks, through the provider's own client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anthropic
import openai
import pytest
from pydantic_ai import Agent, ModelRequest
from pydantic_ai.direct import model_request_stream

from agent_worker.adapters import (
    ProviderStream,
    anthropic_messages,
    openai_chat,
    openai_responses,
    pydantic_ai_events,
)
from agent_worker.user_code.errors import AgentError
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.values import Json
from tests.adapters import frames as f
from tests.adapters.calls import chat_model
from tests.adapters.provider import Answer, Frame, Provider, named

SIGNED: Json = {"anthropic": {"signature": "sig"}}


def chat(client: openai.AsyncOpenAI, **options: Any) -> ProviderStream[Any]:
    call = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    return openai_chat.stream(call, **options)


def responses(client: openai.AsyncOpenAI) -> ProviderStream[Any]:
    return openai_responses.stream(client.responses.create(model="m", input="hi", stream=True))


def claude(client: anthropic.AsyncAnthropic) -> ProviderStream[Any]:
    call = client.messages.create(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    return anthropic_messages.stream(call)


async def read(provider: Provider, stream: ProviderStream[Any], frames: Sequence[Frame]) -> list[p.Chunk]:
    provider.answers = [Answer(frames)]
    return [chunk async for chunk in stream]


async def test_chat_text_after_reasoning(provider: Provider, openai_client: openai.AsyncOpenAI) -> None:
    stream = chat(openai_client)
    frames = [
        f.chat(role="assistant", content=""), f.chat(reasoning_content="let me "), f.chat(reasoning_content="see"),
        f.chat(content="Hel"), f.chat(content="lo"), f.chat("stop"), f.chat_usage(), f.DONE,
    ]  # fmt: skip
    assert await read(provider, stream, frames) == [
        p.ReasoningStart("reasoning-0"), p.ReasoningDelta("reasoning-0", "let me "),
        p.ReasoningDelta("reasoning-0", "see"), p.ReasoningEnd("reasoning-0"),
        p.TextStart("text-1"), p.TextDelta("text-1", "Hel"), p.TextDelta("text-1", "lo"), p.TextEnd("text-1"),
        p.FinishStep(), p.Finish("stop"),
    ]  # fmt: skip
    assert stream.finish_reason == "stop"


async def test_chat_tool_calls_side_by_side(provider: Provider, openai_client: openai.AsyncOpenAI) -> None:
    stream = chat(openai_client)
    frames = [
        f.chat(content="hm"), f.chat_call(0, "", "c0", "add"), f.chat_call(0, '{"a":'), f.chat_call(1, "", "c1", "now"),
        f.chat_call(0, "1}"), f.chat("tool_calls"), f.DONE,
    ]  # fmt: skip
    assert await read(provider, stream, frames) == [
        p.TextStart("text-0"), p.TextDelta("text-0", "hm"), p.TextEnd("text-0"),
        p.ToolInputStart("c0", "add"), p.ToolInputDelta("c0", '{"a":'), p.ToolInputStart("c1", "now"),
        p.ToolInputDelta("c0", "1}"), p.ToolInputAvailable("c0", "add", {"a": 1}),
        p.ToolInputAvailable("c1", "now", {}), p.FinishStep(),
    ]  # fmt: skip
    assert [call.tool_call_id for call in stream.tool_calls] == ["c0", "c1"]
    assert stream.finish_reason == "tool-calls"


async def test_arguments_that_are_no_object_are_an_error_of_the_call(
    provider: Provider, openai_client: openai.AsyncOpenAI
) -> None:
    stream = chat(openai_client)
    chunks = await read(provider, stream, [f.chat_call(0, '{"a"', "c0", "add"), f.chat("tool_calls"), f.DONE])
    assert isinstance(chunks[-2], p.ToolInputError)
    assert stream.tool_calls == ()


@pytest.mark.parametrize(
    ("said", "expected"),
    [("length", "length"), ("content_filter", "content-filter"), ("eos", "other")],
)
async def test_chat_finish_reasons(
    said: str, expected: str, provider: Provider, openai_client: openai.AsyncOpenAI
) -> None:
    chunks = await read(provider, chat(openai_client), [f.chat(content="x"), f.chat(said), f.DONE])
    assert chunks[-1] == p.Finish(expected)


async def test_a_message_can_be_left_open(provider: Provider, openai_client: openai.AsyncOpenAI) -> None:
    frames = [f.chat(content="x"), f.chat("stop"), f.DONE]
    assert (await read(provider, chat(openai_client, finish=False), frames))[-1] == p.FinishStep()


async def test_responses_with_summary_text_and_call(
    provider: Provider, openai_client: openai.AsyncOpenAI
) -> None:
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "add", "arguments": ""}
    stream = responses(openai_client)
    frames = [
        f.response_state("created", "in_progress"),
        f.response("output_item.added", output_index=0, item={"type": "reasoning", "id": "rs_1", "summary": []}),
        f.response("reasoning_summary_text.delta", item_id="rs_1", output_index=0, summary_index=0, delta="one"),
        f.response("reasoning_summary_text.delta", item_id="rs_1", output_index=0, summary_index=1, delta="two"),
        f.response_text("Hel"), f.response_text("lo"),
        f.response("output_item.added", output_index=2, item=call),
        f.response("function_call_arguments.delta", item_id="fc_1", output_index=2, delta='{"a":1}'),
        f.response("of_the_future", anything=1),
        f.response("output_item.done", output_index=2, item={**call, "arguments": '{"a":1}'}),
        f.response_state("completed", "completed"),
    ]  # fmt: skip
    assert await read(provider, stream, frames) == [
        p.ReasoningStart("reasoning-0"), p.ReasoningDelta("reasoning-0", "one"), p.ReasoningEnd("reasoning-0"),
        p.ReasoningStart("reasoning-1"), p.ReasoningDelta("reasoning-1", "two"), p.ReasoningEnd("reasoning-1"),
        p.TextStart("text-2"), p.TextDelta("text-2", "Hel"), p.TextDelta("text-2", "lo"), p.TextEnd("text-2"),
        p.ToolInputStart("c1", "add"), p.ToolInputDelta("c1", '{"a":1}'),
        p.ToolInputAvailable("c1", "add", {"a": 1}), p.FinishStep(),
    ]  # fmt: skip
    assert stream.finish_reason == "tool-calls"


async def test_a_response_cut_by_its_limit(provider: Provider, openai_client: openai.AsyncOpenAI) -> None:
    limit = {"reason": "max_output_tokens"}
    end = f.response_state("incomplete", "incomplete", incomplete_details=limit)
    chunks = await read(provider, responses(openai_client), [f.response_text("x"), end])
    assert chunks[-1] == p.Finish("length")


async def test_claude_thinking_text_and_tool(
    provider: Provider, anthropic_client: anthropic.AsyncAnthropic
) -> None:
    stream = claude(anthropic_client)
    frames = [
        f.claude_start(), named({"type": "ping"}),
        f.block(0, type="thinking", thinking="", signature=""), f.delta(0, "thinking_delta", thinking="hm"),
        f.delta(0, "signature_delta", signature="sig"), f.block_end(0),
        f.block(1, type="text", text=""), f.delta(1, "text_delta", text="Hello"), f.block_end(1),
        f.block(2, type="tool_use", id="t1", name="add", input={}), f.delta(2, "input_json_delta", partial_json=""),
        f.delta(2, "input_json_delta", partial_json='{"a":'), f.delta(2, "input_json_delta", partial_json=" 1}"),
        f.block_end(2), *f.claude_end("tool_use"),
    ]  # fmt: skip
    assert await read(provider, stream, frames) == [
        p.ReasoningStart("reasoning-0"), p.ReasoningDelta("reasoning-0", "hm"),
        p.ReasoningEnd("reasoning-0", SIGNED),
        p.TextStart("text-1"), p.TextDelta("text-1", "Hello"), p.TextEnd("text-1"),
        p.ToolInputStart("t1", "add"), p.ToolInputDelta("t1", '{"a":'), p.ToolInputDelta("t1", " 1}"),
        p.ToolInputAvailable("t1", "add", {"a": 1}), p.FinishStep(),
    ]  # fmt: skip
    assert [call.input for call in stream.tool_calls] == [{"a": 1}]


async def test_a_tool_that_claude_runs_itself(
    provider: Provider, anthropic_client: anthropic.AsyncAnthropic
) -> None:
    stream = claude(anthropic_client)
    found = [{"type": "web_search_result", "url": "https://x", "title": "X", "encrypted_content": "e"}]
    frames = [
        f.claude_start(), f.block(0, type="server_tool_use", id="s1", name="web_search", input={}),
        f.delta(0, "input_json_delta", partial_json='{"query":"x"}'), f.block_end(0),
        f.block(1, type="web_search_tool_result", tool_use_id="s1", content=found), f.block_end(1),
        f.block(2, type="text", text=""), f.delta(2, "text_delta", text="X"), f.block_end(2),
        *f.claude_end("end_turn"),
    ]  # fmt: skip
    chunks = await read(provider, stream, frames)
    ready, result = chunks[2], chunks[3]
    assert ready == p.ToolInputAvailable("s1", "web_search", {"query": "x"}, provider_executed=True)
    assert isinstance(result, p.ToolOutputAvailable) and result.provider_executed
    assert isinstance(result.output, list) and isinstance(result.output[0], dict)
    assert result.output[0]["url"] == "https://x"
    assert stream.tool_calls == ()
    assert chunks[-1] == p.Finish("stop")


async def test_the_stream_helper_of_anthropic_says_nothing_twice(
    provider: Provider, anthropic_client: anthropic.AsyncAnthropic
) -> None:
    call = anthropic_client.messages.stream(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    )
    frames = [
        f.claude_start(), f.block(0, type="text", text=""), f.delta(0, "text_delta", text="once"), f.block_end(0),
        *f.claude_end("max_tokens"),
    ]  # fmt: skip
    assert await read(provider, anthropic_messages.stream(call), frames) == [
        p.TextStart("text-0"), p.TextDelta("text-0", "once"), p.TextEnd("text-0"),
        p.FinishStep(), p.Finish("length"),
    ]  # fmt: skip


async def test_a_run_of_a_pydantic_ai_agent_with_a_tool(
    provider: Provider, openai_client: openai.AsyncOpenAI
) -> None:
    agent = Agent(chat_model(openai_client))

    @agent.tool_plain
    def add(a: int, b: int) -> dict[str, int]:
        return {"sum": a + b}

    call = [
        f.chat(content="hm"), f.chat_call(0, "", "c0", "add"), f.chat_call(0, '{"a":1,'), f.chat_call(0, '"b":2}'),
        f.chat("tool_calls"), f.DONE,
    ]  # fmt: skip
    provider.answers = [Answer(call), Answer([f.chat(content="3"), f.chat("stop"), f.DONE])]
    stream = pydantic_ai_events.stream(agent.run_stream_events("1 + 2?"))
    assert [chunk async for chunk in stream] == [
        p.TextStart("text-0"), p.TextDelta("text-0", "hm"), p.TextEnd("text-0"),
        p.ToolInputStart("c0", "add"), p.ToolInputDelta("c0", '{"a":1,'), p.ToolInputDelta("c0", '"b":2}'),
        p.ToolInputAvailable("c0", "add", {"a": 1, "b": 2}), p.ToolOutputAvailable("c0", {"sum": 3}),
        p.FinishStep(),
        p.TextStart("text-1"), p.TextDelta("text-1", "3"), p.TextEnd("text-1"), p.FinishStep(), p.Finish("stop"),
    ]  # fmt: skip
    assert stream.tool_calls == ()


@pytest.mark.parametrize(
    "error", [LookupError("secret"), AgentError("no such city"), OSError("no such file")]
)
async def test_a_tool_that_raises_is_not_the_providers_fault(
    error: Exception, provider: Provider, openai_client: openai.AsyncOpenAI
) -> None:
    agent = Agent(chat_model(openai_client))

    @agent.tool_plain
    def broken() -> str:
        raise error

    provider.answers = [Answer([f.chat_call(0, "{}", "c0", "broken"), f.chat("tool_calls"), f.DONE])]
    with pytest.raises(type(error)) as caught:
        [chunk async for chunk in pydantic_ai_events.stream(agent.run_stream_events("go"))]
    assert caught.value is error


async def test_a_model_of_pydantic_ai_without_an_agent(
    provider: Provider, openai_client: openai.AsyncOpenAI
) -> None:
    call = model_request_stream(chat_model(openai_client), [ModelRequest.user_text_prompt("hi")])
    frames = [f.chat(reasoning_content="hm"), f.chat(content="x"), f.chat("length"), f.DONE]
    chunks = await read(provider, pydantic_ai_events.stream(call), frames)
    assert [chunk.type for chunk in chunks] == [
        "reasoning-start", "reasoning-delta", "reasoning-end", "text-start", "text-delta", "text-end", "finish-step",
        "finish",
    ]  # fmt: skip
    assert chunks[-1] == p.Finish("length")


async def test_an_answer_that_ends_without_saying_why_is_not_taken_for_whole(
    provider: Provider, openai_client: openai.AsyncOpenAI, anthropic_client: anthropic.AsyncAnthropic
) -> None:
    cut_short = [
        (chat(openai_client), [f.chat(content="x"), f.DONE]),
        (responses(openai_client), [f.response_text("x")]),
        (claude(anthropic_client), [f.claude_start(), f.claude_end("end_turn")[0]]),
    ]
    for stream, frames in cut_short:
        with pytest.raises(AgentError, match="broke off"):
            await read(provider, stream, frames)
