"""Many reads at once, again and again: by one server, and by the servers of a Cluster whose slots move and sockets break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis
from redis.crc import key_slot

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.duties import Duties
from selfhost_transport.store.keys import Keyspace
from tests.processes import wait_until
from tests.redis_io.clusters import Clustered, clustered

KEYS = Keyspace("batched", 1024)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    with clustered(tmp_path_factory.mktemp("batches"), timeout_ms=15_000) as made:
        yield made


@pytest.fixture(params=["one server", "cluster"])
async def connection(
    request: pytest.FixtureRequest, redis_server: EmbeddedRedis
) -> AsyncIterator[RedisConnection]:
    """To either."""
    url = redis_server.url
    if request.param == "cluster":
        cluster: Clustered = request.getfixturevalue("cluster")
        await wait_until(cluster.replicate, 30, "a replica that knows its primary")
        await wait_until(cluster.ready, 30, "servers that know each other")
        url = cluster.url
    connection = RedisConnection(url)
    yield connection
    for base in KEYS.bases():
        await connection.command("DEL", f"{base}leases", f"{base}q:assistant")
    await connection.close()


async def test_buckets_that_have_something_are_found(connection: RedisConnection) -> None:
    duties = Duties(connection, KEYS)
    assert await duties.buckets_with("leases", "deadlines") == []
    for bucket, due in ((3, 100), (700, 200), (1023, 300)):
        await connection.command("ZADD", f"{KEYS.base(bucket)}leases", due, "one")
        await connection.command("ZADD", f"{KEYS.base(bucket)}leases", 900, "two")
    assert await duties.buckets_with("leases", "deadlines") == [3, 700, 1023]
    assert await duties.buckets_due("leases", 99) == []
    assert await duties.buckets_due("leases", 200) == [3, 700]


async def test_replies_belong_to_their_commands(connection: RedisConnection) -> None:
    for bucket in range(5):
        await connection.command("SET", f"{KEYS.base(bucket)}leases", f"{bucket}")
    batch = connection.batch([("GET", f"{base}leases") for base in KEYS.bases()[:5]])
    assert await batch.ask(5) == [b"0", b"1", b"2", b"3", b"4"]
    wrong = connection.batch([("LLEN", f"{KEYS.base(1)}leases"), ("GET", f"{KEYS.base(2)}leases")])
    failed, right = await wrong.ask(5)
    assert isinstance(failed, Exception) and right == b"2"
    assert await connection.batch([]).ask(5) == []


async def test_a_batch_follows_its_slots(cluster: Clustered) -> None:
    """After a move the first look may miss the slot; after a lost socket too. The next one has everything."""
    await wait_until(cluster.replicate, 30, "a replica that knows its primary")
    await wait_until(cluster.ready, 30, "servers that know each other")
    connection = RedisConnection(cluster.url)
    duties, base = Duties(connection, KEYS), KEYS.base(7)
    await connection.command("ZADD", f"{base}leases", 1, "one")
    assert await duties.buckets_with("leases") == [7]
    slot = key_slot(base.encode())
    source = cluster.owner_of(slot)
    cluster.move(slot, next(port for port in cluster.ports[:3] if port != source))
    assert await duties.buckets_with("leases") in ([], [7])
    assert await duties.buckets_with("leases") == [7]
    for port in cluster.ports[:3]:
        with redis.Redis(port=port) as server:
            server.client_kill_filter(_type="normal", skipme=True)
    await duties.buckets_with("leases")
    assert await duties.buckets_with("leases") == [7]
    await connection.close()
