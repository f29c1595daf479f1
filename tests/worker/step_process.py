"""One activity of a workflow as a process of its own: `python -m tests.worker.step_process REDIS WHAT TURN`.

`start`: starts the turn and leaves after its first step. `finish`: adopts it, writes the second step and completes it.
`hang`: starts it and stays in its first step.
"""

from __future__ import annotations

import asyncio
import sys

from agent_worker import AgentHost, HeldTurn
from tests.worker.hosts import ROOM


async def write(turn: HeldTurn, step_id: str, text: str, *, hang: bool = False) -> None:
    """Write a text as one step; with `hang`, stay in it."""
    async with turn.step(step_id) as step:
        await step.pipe([text])
        print("ready", step_id, flush=True)
        if hang:
            await asyncio.Event().wait()


async def run(redis_url: str, what: str, turn_id: str) -> None:
    """Do one activity."""
    async with AgentHost(redis_url) as host:
        session = host.session(ROOM)
        if what == "finish":
            turn = await session.adopt(turn_id)
            await write(turn, "two", "two")
            await turn.complete()
        else:
            turn = await session.create_turn(turn_id)
            await write(turn, "one", "one ", hang=what == "hang")


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
