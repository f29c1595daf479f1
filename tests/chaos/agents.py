"""The agents of the chaos driver's workers: the scripted model, and one that says nothing for a while and then ends."""

from __future__ import annotations

import asyncio

from agent_worker import Turn, Worker
from agent_worker.scripted.model import scripted_worker

SILENT = "silent"
WORKER = "tests.chaos.agents:make_worker"
_SILENCE_S = 1.0


def make_worker() -> Worker:
    """Both agents."""
    worker = scripted_worker()

    @worker.agent(SILENT)
    async def silent(turn: Turn) -> None:
        # All that it ever writes is its end: one that lost the turn meanwhile finds that out there, or not at all.
        await asyncio.sleep(_SILENCE_S)  # thinks

    return worker
