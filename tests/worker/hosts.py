"""Processes that hold turns without a queue, as the tests of steps and adoption use them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from agent_worker import AgentHost, AgentSession
from selfhost_transport.settings import Settings

ROOM = "room"
"""The session that every test uses; see `Room`."""

OpenSession = Callable[..., Awaitable[AgentSession]]
"""A host of its own, entered, and the test's room as it sees it; keywords: those of `AgentHost`, `lease_ms`."""


@pytest.fixture
async def session(settings: Callable[..., Settings]) -> AsyncIterator[OpenSession]:
    """Opens hosts in this process, and closes them when the test ends."""
    async with AsyncExitStack() as stack:

        async def open_session(*, lease_ms: int = 10_000, adoption_window_s: float = 60.0) -> AgentSession:
            host = AgentHost(settings(lease_ms=lease_ms), adoption_window_s=adoption_window_s)
            return (await stack.enter_async_context(host)).session(ROOM)

        yield open_session
