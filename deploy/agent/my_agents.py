"""An agent of one's own, as an example for an image: it answers with the number of words of the question."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agent_worker import Turn, Worker

worker = Worker()


@worker.agent("assistant")
async def assistant(turn: Turn) -> AsyncIterator[str]:
    """Put a model here: docs/adapters.md."""
    yield f"That question has {len((await turn.text()).split())} words."
