"""A worker whose agent asks a model through the openai adapter: `worker tests.adapters.agent:worker`."""

from __future__ import annotations

import os

import openai

from agent_worker import Turn, Worker
from agent_worker.adapters import openai_chat

PROVIDER = "PROVIDER_OF_THE_TEST"

worker = Worker()


@worker.agent("assistant")
async def assistant(turn: Turn) -> None:
    """Give the model the conversation, and the session its answer."""
    client = openai.AsyncOpenAI(base_url=os.environ[PROVIDER], api_key="sk-test", max_retries=0)
    given = openai_chat.messages(await turn.conversation.messages())
    await turn.pipe(
        openai_chat.stream(client.chat.completions.create(model="m", messages=given, stream=True))
    )
