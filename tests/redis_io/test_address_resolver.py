"""Following a primary: Sentinels that name one, a server that is no primary any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis

from selfhost_transport.errors import InvalidArgument, StoreUnavailable
from selfhost_transport.redis_io.address_resolver import Fixed, Sentinels, address_resolver
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.link import Link
from selfhost_transport.redis_io.subscriber import Subscriber
from tests.processes import wait_until
from tests.redis_io.lua import Lua
from tests.redis_io.sentinels import SERVICE, Watched, port_of, watched

ADD = Lua("return redis.call('RPUSH', KEYS[1], ARGV[1])")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Shared: the test that kills a server is the last one that uses it."""
    with watched(tmp_path_factory.mktemp("sentinels")) as made:
        yield made


async def test_sentinels_that_cannot_say_where_the_primary_is(deployment: Watched) -> None:
    unknown = RedisConnection(deployment.url.replace(SERVICE, "other"), timeout_s=0.3)
    with pytest.raises(StoreUnavailable, match="has no service 'other'"):
        await unknown.command("PING")
    await unknown.close()
    absent = RedisConnection("redis+sentinel://127.0.0.1:1/x", timeout_s=0.3)
    with pytest.raises(StoreUnavailable, match="no Sentinel names the primary"):
        await absent.command("PING")
    await absent.close()


async def test_a_sentinel_behind_the_times_is_outvoted_and_a_replica_refused(deployment: Watched) -> None:
    await wait_until(deployment.ready, 30, "Sentinels that know each other")
    replica = port_of(deployment.servers[1])
    with pytest.raises(StoreUnavailable, match="it is a replica"):
        where = address_resolver(deployment.url)
        assert isinstance(where, Sentinels)
        await Link.open(where.server.at("127.0.0.1", replica), lambda _: None, lambda _: None, 5)
    dead = deployment.url.replace("redis+sentinel://", "redis+sentinel://127.0.0.1:1,")
    assert (await address_resolver(dead).locate()).port == deployment.primary()


async def test_a_planned_fail_over_is_followed_and_keeps_the_order(deployment: Watched) -> None:
    await wait_until(deployment.ready, 30, "Sentinels that know each other")
    connection = RedisConnection(deployment.url, timeout_s=20)
    back = asyncio.Event()
    received: list[bytes] = []
    subscriber = Subscriber(deployment.url, on_reconnect=back.set)
    await subscriber.subscribe("t-channel", received.append)
    first = deployment.primary()
    deployment.hand_over()
    written = 0
    # What the old primary takes while it is being replaced is gone: Redis' replication is asynchronous.
    while _role(deployment.servers[0]) == b"master":
        await connection.call(ADD, ["list"], [written], retry_s=20)
        written += 1
    await asyncio.gather(*(connection.call(ADD, ["after"], [n], retry_s=20) for n in range(50)))
    assert await connection.command("LRANGE", "after", 0, -1) == [b"%d" % n for n in range(50)]
    assert int((await connection.info())["tcp_port"]) == deployment.primary() != first
    await asyncio.wait_for(back.wait(), 20)
    await connection.command("PUBLISH", "t-channel", "x")
    await wait_until(lambda: received == [b"x"], 5)
    await subscriber.close()
    await connection.close()


async def test_a_killed_primary_is_followed_to_its_successor(deployment: Watched) -> None:
    await wait_until(deployment.ready, 30, "Sentinels that know each other")
    connection = RedisConnection(deployment.url, timeout_s=20)
    await connection.call(ADD, ["kill"], ["a"])
    assert await connection.command("WAIT", 1, 10_000) == 1
    await deployment.kill_primary()
    assert await connection.call(ADD, ["kill"], ["b"], retry_s=20) == 2
    await connection.close()


async def test_a_server_that_becomes_a_replica_is_asked_again_until_the_call_times_out() -> None:
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as admin:
        connection = RedisConnection(server.url, timeout_s=0.4)
        assert await connection.call(ADD, ["list"], ["a"]) == 1
        admin.replicaof("127.0.0.1", 1)
        with pytest.raises(StoreUnavailable, match="does not accept writes"):
            await connection.call(ADD, ["list"], ["b"])
        again = [connection.call(ADD, ["list"], [n], retry_s=10) for n in range(3)]
        await asyncio.wait(again, timeout=0.2)
        admin.replicaof("NO", "ONE")
        assert await asyncio.gather(*again) == [2, 3, 4]
        assert await connection.command("LRANGE", "list", 0, -1) == [b"a", b"0", b"1", b"2"]
        await connection.close()


def test_addresses_of_sentinels() -> None:
    where = address_resolver(
        "rediss+sentinel://user:p%40w@one:5000,two/my%20service/3"
        "?sentinel_username=watch&sentinel_password=secret&ssl_cert_reqs=none"
    )
    assert isinstance(where, Sentinels) and where.service == "my service"
    assert [(s.host, s.port, s.username, s.password) for s in where.sentinels] == [
        ("one", 5000, "watch", "secret"),
        ("two", 26379, "watch", "secret"),
    ]
    assert all(s.tls is not None for s in where.sentinels)
    server = where.server.at("host", 7)
    assert (server.host, server.port, server.database, server.primary) == ("host", 7, 3, True)
    assert (server.username, server.password, server.tls is not None) == ("user", "p@w", True)
    assert isinstance(address_resolver("redis://host:1/2"), Fixed)


@pytest.mark.parametrize("url", ["http://one:1", "one:6379", ""])
def test_an_unknown_scheme_is_refused_with_all_that_are_known(url: str) -> None:
    with pytest.raises(InvalidArgument, match=r"redis, rediss, unix, redis\+sentinel.*redis\+cluster"):
        address_resolver(url)


@pytest.mark.parametrize("url", ["redis+sentinel://one:1", "redis+sentinel:///x", "redis+sentinel://one:z/x"])
def test_addresses_that_name_no_service_or_no_sentinel(url: str) -> None:
    with pytest.raises(InvalidArgument, match="not an address of this kind"):
        address_resolver(url)


def _role(server: EmbeddedRedis) -> bytes:
    """A client of its own each time: Sentinel cuts all connections of a server that it demotes."""
    with redis.Redis.from_url(server.url) as admin:
        try:
            return bytes(admin.role()[0])
        except redis.ConnectionError:
            return b""


async def test_a_user_who_may_not_ask_for_the_role_gets_in() -> None:
    with EmbeddedRedis() as server, redis.Redis.from_url(server.url) as admin:
        admin.acl_setuser(
            "app", enabled=True, passwords=["+pw"], categories=["+@all"], commands=["-role"], keys=["*"]
        )
        where = address_resolver("redis+sentinel://app:pw@h:1/s")
        assert isinstance(where, Sentinels)
        link = await Link.open(
            where.server.at("127.0.0.1", port_of(server)), lambda _: None, lambda _: None, 5
        )
        link.close()
        with pytest.raises(StoreUnavailable, match="WRONGPASS"):
            other = address_resolver("redis+sentinel://app:wrong@h:1/s")
            assert isinstance(other, Sentinels)
            await Link.open(other.server.at("127.0.0.1", port_of(server)), lambda _: None, lambda _: None, 5)
