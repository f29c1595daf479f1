"""A connection to a Cluster: slots that move, a primary that is killed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
from redis.crc import key_slot

from selfhost_transport.errors import InvalidArgument, StoreUnavailable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.address_resolver import address_resolver
from selfhost_transport.redis_io.cluster import ClusterNodes
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.subscriber import Subscriber
from tests.processes import wait_until
from tests.redis_io.clusters import Clustered, clustered
from tests.redis_io.lua import Lua

ADD = Lua("return redis.call('RPUSH', KEYS[1], ARGV[1])")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    """Shared: the test that kills a server is the last one that uses it."""
    with clustered(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(autouse=True)
async def formed(cluster: Clustered, request: pytest.FixtureRequest) -> None:
    """The Cluster serves."""
    if cluster.processes[0].poll() is None:
        await wait_until(cluster.replicate, 30, "a replica that knows its primary")
        await wait_until(cluster.ready, 30, "servers that know each other")


async def test_calls_go_where_their_key_is(cluster: Clustered) -> None:
    connection = RedisConnection(cluster.url)
    names = [f"{{b{n}}}:list" for n in range(16)]
    await asyncio.gather(*(connection.call(ADD, [name], [n]) for name in names for n in range(5)))
    for name in names:
        assert await connection.command("LRANGE", name, 0, -1) == [b"0", b"1", b"2", b"3", b"4"]
    owners = {await _owner(cluster, name) for name in names}
    assert len(owners) == 3 and connection.connected and connection.in_flight == 0
    assert (await connection.info())["cluster_enabled"] == "1"
    cursor, found = await connection.command("SCAN", 0, "MATCH", "{b3}:*", "COUNT", 1000, node_key="{b3}")
    assert (cursor, found) == (b"0", [b"{b3}:list"])
    await connection.close()


async def test_notifications_reach_every_server(cluster: Clustered) -> None:
    connection, received = RedisConnection(cluster.url), list[bytes]()
    subscriber = Subscriber(cluster.url)
    await subscriber.subscribe("t-channel", received.append)
    publish = Lua("return redis.call('PUBLISH', ARGV[1], ARGV[2])")
    for number in range(9):
        await connection.call(publish, [f"{{b{number}}}"], ["t-channel", number])
    await wait_until(lambda: sorted(received) == [b"%d" % number for number in range(9)])
    await subscriber.close()
    await connection.close()


async def test_a_slot_that_is_moved_is_followed_in_order(cluster: Clustered) -> None:
    connection = RedisConnection(cluster.url)
    slot = key_slot(b"{b7}")
    assert await connection.call(ADD, ["{b7}:moved"], ["before"]) == 1
    await connection.command("DEL", "{b7}:moved", "{b7}:list")
    owner = await _owner(cluster, "{b7}")
    # Not the one that another test kills.
    [target] = [port for port in cluster.ports[1:3] if port != owner][:1]
    with redis.Redis(port=target) as new:
        node = new.execute_command("CLUSTER MYID").decode()
    for port in (target, *(port for port in cluster.ports[:3] if port != target)):
        with redis.Redis(port=port) as server:
            server.execute_command("CLUSTER SETSLOT", slot, "NODE", node)
            if port == target:
                # What it says of its slots counts more than what the others say.
                server.execute_command("CLUSTER BUMPEPOCH")

    async def all_know() -> bool:
        return {await _reported(port, slot) for port in cluster.ports} == {target}

    await wait_until(all_know, 20, "servers that agree")
    await asyncio.gather(*(connection.call(ADD, ["{b7}:moved"], [n]) for n in range(50)))
    assert await connection.command("LRANGE", "{b7}:moved", 0, -1) == [b"%d" % n for n in range(50)]
    await connection.close()


async def test_a_killed_primary_is_followed_to_its_replica(cluster: Clustered) -> None:
    connection = RedisConnection(cluster.url, timeout_s=20)
    names = [f"{{b{n}}}:killed" for n in range(16)]
    await asyncio.gather(*(connection.call(ADD, [name], ["a"]) for name in names))
    for name in names:
        await connection.command("WAIT", 1, 100, node_key=name)
    await cluster.kill_first()
    replies = await asyncio.gather(*(connection.call(ADD, [name], ["b"], retry_s=20) for name in names))
    assert replies == [2] * 16
    await connection.close()


async def test_a_cluster_that_is_not_there() -> None:
    connection = RedisConnection("redis+cluster://127.0.0.1:1,127.0.0.1:2", timeout_s=0.3)
    with pytest.raises(StoreUnavailable, match="no server of the Cluster"):
        await connection.command("GET", "x")
    await connection.close()


def test_addresses_of_clusters() -> None:
    where = address_resolver("rediss+cluster://user:pw@one:5000,two:5001?ssl_cert_reqs=none")
    assert isinstance(where, ClusterNodes) and str(where) == "one:5000,two:5001"
    server = where.at("three", 5002)
    assert (server.host, server.port, server.username, server.password) == ("three", 5002, "user", "pw")
    assert server.tls is not None and server.primary
    for wrong in ("redis+cluster://one:1/3", "redis+cluster://"):
        with pytest.raises(InvalidArgument, match="not an address of this kind"):
            address_resolver(wrong)


async def _reported(port: int, slot: int) -> int:
    """Who has a slot, by what one server says."""
    found = await ClusterNodes([Address(port=port)]).read()
    return next((one.port for one in found if one.first <= slot <= one.last), 0)


async def _owner(cluster: Clustered, key: str) -> int:
    where = address_resolver(cluster.url)
    assert isinstance(where, ClusterNodes)
    slot = key_slot(key.encode())
    return next(one.port for one in await where.read() if one.first <= slot <= one.last)
