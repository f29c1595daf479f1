"""Scripted agents; the one called guard lets no one but the owner of a turn cancel it."""

from __future__ import annotations

from agent_worker import CancelRequest, Worker
from agent_worker.scripted.model import scripted

worker = Worker()
worker.agent("assistant")(scripted)
worker.agent("guard")(scripted)


@worker.on_cancel("guard", undecided="deny", grace_s=2.0)
async def owner_only(request: CancelRequest) -> bool:
    """Whether it is the owner who asks."""
    return request.requester == request.matched[request.turn.turn_id]
