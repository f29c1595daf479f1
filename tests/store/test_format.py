"""The format of the data in Redis is stated, and checked by every process that starts."""

from __future__ import annotations

import pytest

from agent_worker import Worker
from gateway.services import connect_services
from selfhost_transport.commands.stores import opened_stores
from selfhost_transport.errors import StoreUnsuitable
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import load_settings
from selfhost_transport.store.format import FORMAT, check_format


async def test_the_first_process_notes_the_format_and_a_command_does_not(
    connection: RedisConnection, redis_prefix: str
) -> None:
    await check_format(connection, redis_prefix, note=False)
    assert await connection.command("EXISTS", f"{redis_prefix}:format") == 0
    await check_format(connection, redis_prefix)
    await check_format(connection, redis_prefix)
    assert await connection.command("GET", f"{redis_prefix}:format") == str(FORMAT).encode()


async def test_every_process_refuses_a_format_it_does_not_know(
    connection: RedisConnection, redis_url: str, redis_prefix: str
) -> None:
    await connection.command("SET", f"{redis_prefix}:format", "3")
    settings = load_settings(redis=redis_url, redis_prefix=redis_prefix)
    worker = Worker(settings)

    @worker.agent("a")
    async def agent(turn: object) -> None: ...

    with pytest.raises(StoreUnsuitable, match=r"has the format '3'.*prefix of its own"):
        await connect_services(settings)
    with pytest.raises(StoreUnsuitable, match="has the format '3'"):
        await worker.run()
    with pytest.raises(StoreUnsuitable, match="has the format '3'"):
        async with opened_stores(settings):
            pass
