"""A worker that answers with the question."""

from __future__ import annotations

from collections.abc import Callable

from agent_worker import Turn, Worker
from selfhost_transport.settings import Settings

MakeSettings = Callable[..., Settings]


def echo(settings: Settings) -> Worker:
    worker = Worker(settings)

    @worker.agent("assistant")
    async def assistant(turn: Turn) -> str:
        return await turn.text()

    return worker
