"""Two deployments with the same prefix, in two databases of one server: neither hears of the other."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store import scripts
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.occupancy import AttachmentCounts, OccupancyStore
from selfhost_transport.store.revocations import Revocation, RevocationStore, TargetKind
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_store import CancelFilter, Scope, TurnStore
from selfhost_transport.wire.message import Message
from tests.processes import wait_until
from tests.store.turns import CANCEL, SESSION, chunk, open_text, started

KEYS = Keyspace("both", buckets=4)
CHANNELS = (
    KEYS.channel(SESSION),
    f"{KEYS.base_of(SESSION)}ctl",
    f"{KEYS.base_of(SESSION)}j:{SESSION}",
    "both:revoked",
)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as one:
        yield one


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[dict[str, int]]:
    """How many notifications each channel brought."""
    heard = dict.fromkeys(CHANNELS, 0)
    subscriber = Subscriber(url)

    def count(channel: str) -> Callable[[bytes], None]:
        def received(payload: bytes) -> None:
            heard[channel] += 1

        return received

    try:
        for channel in CHANNELS:
            await subscriber.subscribe(channel, count(channel))
        yield heard
    finally:
        await subscriber.close()


async def everything_that_is_announced(connection: RedisConnection) -> None:
    """A publish, a turn with a chunk and a cancel, a counts of occupancy, a revocation."""
    turns = TurnStore(connection, KEYS)
    await SessionStore(connection, KEYS).publish(SESSION, [Message(data="secret")])
    lease = await started(turns, "t1")
    await chunk(turns, lease, await open_text(turns, lease), "more")
    await turns.cancels.cancel(SESSION, CancelFilter(Scope.TURN, "t1"), CANCEL)
    await OccupancyStore(connection, KEYS).report(SESSION, "node", AttachmentCounts(1))
    await RevocationStore(connection, "both").add([Revocation("a.k", TargetKind.CLIENT_ID, "u", 1, 1)])


@pytest.mark.parametrize(("writes_in", "reads_in"), [(1, 0), (0, 1), (1, 11)])
async def test_what_one_database_announces_another_one_does_not_hear(
    server: EmbeddedRedis, writes_in: int, reads_in: int
) -> None:
    base = server.url.rpartition("/")[0]
    connection = RedisConnection(f"{base}/{writes_in}")
    connection.keep_loaded(scripts.everything())
    async with listening(f"{base}/{reads_in}") as foreign, listening(f"{base}/{writes_in}") as own:
        await everything_that_is_announced(connection)
        await wait_until(lambda: all(own.values()))
        # Whatever the others would have got comes before this.
        neighbour = RedisConnection(f"{base}/{reads_in}")
        await RevocationStore(neighbour, "both").add([Revocation("a.k", TargetKind.CLIENT_ID, "u", 1, 1)])
        await wait_until(lambda: foreign["both:revoked"] > 0)
    assert foreign == {channel: int(channel == "both:revoked") for channel in CHANNELS}
    for each in (connection, neighbour):
        await each.command("FLUSHDB")
        await each.close()


def test_every_publish_of_a_script_names_the_database() -> None:
    published = 0
    for script in scripts.everything():
        for channel in re.findall(r"redis\.call\('PUBLISH', ([^,]+),", script.source):
            published += 1
            defined = re.search(rf"\b{re.escape(channel)} = .*DATABASE$", script.source, re.MULTILINE)
            complete = channel.endswith(".. DATABASE") or defined is not None
            assert complete, (script.name, channel)
    assert published > 10
