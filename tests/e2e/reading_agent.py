"""An agent that reads its conversation all the time while it answers, as many do before each call of a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from agent_worker import Worker
from agent_worker.agent.turn import Turn

TOKENS = 60
PAUSE_S = 0.02

worker = Worker()


@worker.agent("assistant")
async def assistant(turn: Turn) -> AsyncIterator[str]:
    """Numbered tokens, and between them a look at the conversation; none of it is kept."""
    for number in range(TOKENS):
        said = await turn.messages()
        assert any(one.role == "user" for one in said)
        yield f"{number} "
        await asyncio.sleep(PAUSE_S)
