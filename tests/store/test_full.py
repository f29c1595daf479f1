"""A Redis without memory left: sends are refused whole, turns still end, and all is well once there is room."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from selfhost_transport.errors import StoreFull
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_operations import CreateMessage
from selfhost_transport.store.turn_store import CancelFilter, Scope, TurnStore
from selfhost_transport.wire.message import Message
from tests.store.turns import CANCEL, SESSION, chunk, finish, log, names, open_text, request, started, take


@pytest.fixture
def own_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture
async def full(own_server: EmbeddedRedis) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(own_server.url)
    await connection.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
    yield connection
    await connection.close()


async def limit(connection: RedisConnection, size: int) -> None:
    await connection.command("CONFIG", "SET", "maxmemory", size)


async def test_ops_9_a_full_redis_refuses_sends_and_still_ends_turns(full: RedisConnection) -> None:
    turns, sessions = TurnStore(full, Keyspace("full")), SessionStore(full, Keyspace("full"))
    one, two = await started(turns, "t1"), await started(turns, "t2")
    text = await open_text(turns, one)
    await chunk(turns, one, text, "before")
    before = await log(sessions)

    await limit(full, 1)
    for refused in (
        turns.submit(request("t3")),
        sessions.publish(SESSION, [Message(data="x")]),
        turns.write(two, 1, [CreateMessage(Message(name="content"))]),
        chunk(turns, one, text, "more"),
    ):
        with pytest.raises(StoreFull):
            await refused
    assert await log(sessions) == before
    assert (await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)).matched == ("t1",)
    assert await finish(turns, two) is not None
    assert names(await log(sessions))[-5:] == [
        "cancel",
        "+ cancelled",
        "step-cancelled",
        "run-cancelled",
        "run-end",
    ]

    await limit(full, 0)
    assert (await turns.submit(request("t3"))).status == "pending"
    assert await take(turns) is not None
