"""A worker whose agent asks a model over HTTP, through the openai adapter: `worker benchmarks.turn_agent:worker`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import openai
from openai.types.chat import ChatCompletionMessageParam

from agent_worker import Turn, Worker
from agent_worker.adapters import openai_chat
from selfhost_transport.turns import chunks as p

PROVIDER = "BENCHMARK_PROVIDER"

worker = Worker()
_clients: list[openai.AsyncOpenAI] = []


def _client() -> openai.AsyncOpenAI:
    """One for the process, made in its event loop."""
    if not _clients:
        _clients.append(openai.AsyncOpenAI(base_url=os.environ[PROVIDER], api_key="none", max_retries=0))
    return _clients[0]


@worker.agent("assistant")
async def assistant(turn: Turn) -> AsyncIterator[p.Chunk]:
    """Pass the model's answer on."""
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": await turn.text()}]
    call = _client().chat.completions.create(model="m", messages=asked, stream=True)
    async with openai_chat.stream(call) as answer:
        async for chunk in answer:
            yield chunk
