"""A store on the shared real Redis under a prefix of its own, and sends into it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agent_worker import Worker
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import Settings, load_settings
from selfhost_transport.store.keys import Keyspace
from tests.worker.session import Room


@pytest.fixture
async def room(redis_url: str, redis_prefix: str) -> AsyncIterator[Room]:
    """One session, used through the store as a gateway would."""
    connection = RedisConnection(redis_url)
    yield Room(connection, Keyspace(redis_prefix))
    await connection.close()


@pytest.fixture
def settings(redis_url: str, redis_prefix: str) -> Callable[..., Settings]:
    """Settings on the test's prefix; keywords by option name."""

    def make(**options: Any) -> Settings:
        return load_settings(redis=redis_url, redis_prefix=redis_prefix, **options)

    return make


@pytest.fixture
async def running() -> AsyncIterator[Callable[[Worker], object]]:
    """Runs workers in this process, and stops them when the test ends."""
    started: list[tuple[Worker, asyncio.Task[None]]] = []

    async def run(worker: Worker) -> Worker:
        task = asyncio.create_task(worker.run())
        started.append((worker, task))
        ready = asyncio.create_task(worker.ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if task.done():
            task.result()
        return worker

    yield run
    for worker, _ in started:
        worker.stop()
    await asyncio.gather(*(task for _, task in started))
