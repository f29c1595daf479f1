"""The command line in this process, against the shared real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner, Result

from selfhost_transport.cli import app
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.store.keys import Keyspace
from tests.worker.session import Room

T = TypeVar("T")

Call = Callable[..., Result]


class InRoom:
    """Does something in a session, on an event loop of its own: the commands make theirs."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix

    def __call__(self, do: Callable[[Room], Awaitable[T]]) -> T:
        return asyncio.run(self._on_a_connection(do))

    async def _on_a_connection(self, do: Callable[[Room], Awaitable[T]]) -> T:
        connection = RedisConnection(self._url)
        try:
            return await do(Room(connection, Keyspace(self._prefix)))
        finally:
            await connection.close()


@pytest.fixture
def call(redis_url: str, redis_prefix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Runs one command; the Redis and the prefix come from the environment."""
    monkeypatch.setenv(f"{ENV_PREFIX}REDIS", redis_url)
    monkeypatch.setenv(f"{ENV_PREFIX}REDIS_PREFIX", redis_prefix)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    return run


@pytest.fixture
def in_room(redis_url: str, redis_prefix: str) -> InRoom:
    """The session that the commands see."""
    return InRoom(redis_url, redis_prefix)
