"""An agent as people write it: `--agent tests.loadtest.my_agents:worker`."""

from __future__ import annotations

from functools import cache

import openai

from agent_worker import Turn, Worker
from agent_worker.adapters import openai_chat

worker = Worker()


@cache
def client() -> openai.AsyncOpenAI:
    """One for all turns: its connections are used again. The tests import this module without a key."""
    return openai.AsyncOpenAI(max_retries=0)


@worker.agent("assistant")
async def assistant(turn: Turn) -> None:
    """Ask a model, wherever OPENAI_BASE_URL says that it is."""
    messages = openai_chat.messages(await turn.conversation.messages())
    call = client().chat.completions.create(
        model="m", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    await turn.pipe(openai_chat.stream(call))
