"""An agent that calls a model through the OpenAI adapter, runs a tool, and may wait for a person."""

from __future__ import annotations

import os
from typing import Any

import openai

from agent_worker import ToolCall, Turn, Worker
from agent_worker.adapters import openai_chat
from selfhost_transport.tracing import trace_headers

worker = Worker()
client = openai.AsyncOpenAI(base_url=os.environ.get("MODEL_URL", "http://localhost"), api_key="none")


@worker.agent("assistant")
async def answer(turn: Turn) -> None:
    """Look something up, then let the model answer."""
    prompt = await turn.conversation.messages()
    if "approve" in str(prompt) and not await turn.answers():
        await turn.suspend([ToolCall("pay", {}, call_id="pay-1", needs_approval=True)])
    await turn.tool(ToolCall("search", {"query": "x"}), search)
    call = client.chat.completions.create(
        model="m", messages=openai_chat.messages(prompt), stream=True, extra_headers=trace_headers()
    )
    await turn.pipe(openai_chat.stream(call))


async def search(query: str) -> Any:
    """Find nothing."""
    return [query]
