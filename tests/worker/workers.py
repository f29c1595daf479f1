"""Workers that tests run in their own process."""

from __future__ import annotations

from agent_worker import Worker
from agent_worker.scripted.model import scripted
from selfhost_transport.settings import Settings


def scripted_worker(settings: Settings) -> Worker:
    """A worker whose agent `assistant` is the scripted model."""
    worker = Worker(settings)
    worker.agent("assistant")(scripted)
    return worker
