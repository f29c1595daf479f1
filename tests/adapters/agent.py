"""A worker whose agent asks a model through the openai adapter: `worker tests.adapters.agent:worker`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import openai
from openai.types.chat import ChatCompletionMessageFunctionToolCallParam, ChatCompletionMessageParam

from agent_worker import Turn, Worker
from agent_worker.adapters import openai_chat
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns.values import to_text

PROVIDER = "PROVIDER_OF_THE_TEST"

worker = Worker()


@worker.agent("assistant")
async def assistant(turn: Turn) -> AsyncIterator[p.Chunk]:
    """Give the model the conversation and the session its answer, until it calls no more tools."""
    client = openai.AsyncOpenAI(base_url=os.environ[PROVIDER], api_key="sk-test", max_retries=0)
    given = openai_chat.messages(await turn.conversation.messages())
    calling = True
    while calling:
        call = client.chat.completions.create(model="m", messages=given, stream=True)
        async with openai_chat.stream(call) as answer:
            async for chunk in answer:
                yield chunk
        for made in answer.tool_calls:
            yield p.ToolOutputAvailable(made.tool_call_id, "4")
            given += _exchange(made, "4")
        calling = bool(answer.tool_calls)


def _exchange(made: p.ToolInputAvailable, result: str) -> list[ChatCompletionMessageParam]:
    """A call and its result, as the model has to see them in its next turn."""
    assert isinstance(made.input, dict)
    called: ChatCompletionMessageFunctionToolCallParam = {
        "id": made.tool_call_id,
        "type": "function",
        "function": {"name": made.tool_name, "arguments": to_text(made.input)},
    }
    return [
        {"role": "assistant", "tool_calls": [called]},
        {"role": "tool", "tool_call_id": made.tool_call_id, "content": result},
    ]
