"""The pipelining connection and the subscriber against a real Redis that restarts, hangs, fills up."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import hiredis
import pytest

from selfhost_transport.errors import InvalidArgument, StoreFull, StoreUnavailable, StoreUnsuitable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.link import Link
from selfhost_transport.redis_io.subscriber import Subscriber
from tests.processes import wait_until
from tests.redis_io.lua import Lua

ECHO = Lua("return ARGV[1]")


@pytest.fixture
def own_server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as server:
        yield server


async def test_calls_of_one_iteration_are_answered_in_order(redis_url: str) -> None:
    connection = RedisConnection(redis_url)
    replies = await asyncio.gather(*(connection.call(ECHO, [], [n]) for n in range(2000)))
    assert replies == [str(n).encode() for n in range(2000)]
    await connection.close()


async def test_scripts_come_back_after_they_were_lost(own_server: EmbeddedRedis) -> None:
    connection = RedisConnection(own_server.url)
    assert await connection.call(ECHO, [], ["a"]) == b"a"
    await connection.command("SCRIPT", "FLUSH")
    replies = await asyncio.gather(*(connection.call(ECHO, [], [n]) for n in range(5)))
    assert replies == [b"0", b"1", b"2", b"3", b"4"]
    await connection.close()


async def test_calls_of_a_script_that_was_lost_keep_their_order(own_server: EmbeddedRedis) -> None:
    """Those that are sent while others come back wait behind them."""
    connection = RedisConnection(own_server.url)
    push = Lua("return redis.call('RPUSH', KEYS[1], ARGV[1])")
    replies: list[asyncio.Future[object]] = []
    for number in range(1, 401):
        if number % 100 == 50:
            replies.append(connection.command("SCRIPT", "FLUSH"))
        replies.append(connection.call(push, ["list"], [number]))
        if number % 5 == 0:
            await asyncio.sleep(0)
    await asyncio.gather(*replies)
    found = await connection.command("LRANGE", "list", 0, -1)
    assert [int(each) for each in found] == list(range(1, 401))
    await connection.close()


async def test_a_server_has_the_scripts_before_the_first_call(own_server: EmbeddedRedis) -> None:
    """A call of a script that is missing comes back, and one of another script behind it would overtake it."""
    first, second = (Lua(f"return redis.call('RPUSH', KEYS[1], '{name}' .. ARGV[1])") for name in "ab")
    connection, other = RedisConnection(own_server.url), RedisConnection(own_server.url)
    connection.keep_loaded([first, second])
    for _ in range(2):
        await connection.call(second, ["list"], [0])
        await other.command("SCRIPT", "FLUSH")
        await other.command(
            "SCRIPT", "LOAD", second.source
        )  # so that only the first one's call would come back
        await other.command("CLIENT", "KILL", "ID", await connection.command("CLIENT", "ID"))
        await wait_until(lambda: not connection.connected)
        await asyncio.gather(*(connection.call(script, ["list"], [1]) for script in (first, second)))
    assert await other.command("LRANGE", "list", 0, -1) == [b"b0", b"a1", b"b1"] * 2
    await connection.close()
    await other.close()


async def test_a_cancelled_caller_leaves_the_stream_whole(redis_url: str) -> None:
    connection = RedisConnection(redis_url)
    first = connection.call(ECHO, [], ["1"])
    second = connection.call(ECHO, [], ["2"])
    first.cancel()
    assert await second == b"2"
    await connection.close()


async def test_an_error_belongs_to_its_own_call(redis_url: str) -> None:
    connection = RedisConnection(redis_url)
    bad = connection.command("NOSUCHCOMMAND")
    good = connection.call(ECHO, [], ["1"])
    with pytest.raises(StoreUnsuitable):
        await bad
    assert await good == b"1"
    await connection.close()


async def test_a_killed_connection_fails_plain_calls_and_repeats_those_that_may(redis_url: str) -> None:
    connection = RedisConnection(redis_url)
    await connection.command("PING")
    other = RedisConnection(redis_url)
    number = await connection.command("CLIENT", "ID")
    plain = connection.command("BLPOP", "t-none", 30)
    repeated = connection.call(ECHO, [], ["x"], retry_s=5)
    await asyncio.sleep(0)  # both have left
    await other.command("CLIENT", "KILL", "ID", number)
    with pytest.raises(StoreUnavailable):
        await plain
    assert await asyncio.wait_for(repeated, 5) == b"x"
    await connection.close()
    await other.close()


async def test_no_server_is_an_error_that_says_so() -> None:
    with EmbeddedRedis() as server:
        url = server.url
    connection = RedisConnection(url, timeout_s=0.3)
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        await connection.command("PING")
    await connection.close()


async def test_a_server_that_hangs_is_left(own_server: EmbeddedRedis) -> None:
    connection = RedisConnection(own_server.url, timeout_s=0.3)
    await connection.command("PING")
    pid = int((await connection.info())["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable):
            await connection.command("PING")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert await connection.command("PING", retry_s=5) == b"PONG"
    await connection.close()


async def test_a_full_server_is_a_typed_error(own_server: EmbeddedRedis) -> None:
    connection = RedisConnection(own_server.url)
    await connection.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreFull):
        await connection.command("SET", "k", "v")
    await connection.close()


async def test_subscriptions_return_after_a_lost_connection(redis_url: str) -> None:
    connection = RedisConnection(redis_url)
    received: asyncio.Queue[bytes] = asyncio.Queue()
    back = asyncio.Event()
    subscriber = Subscriber(redis_url, on_reconnect=back.set)
    await subscriber.subscribe("t-channel", received.put_nowait)
    await connection.command("PUBLISH", "t-channel", "1")
    assert await asyncio.wait_for(received.get(), 5) == b"1"
    await connection.command("CLIENT", "KILL", "TYPE", "pubsub")
    await asyncio.wait_for(back.wait(), 5)
    await connection.command("PUBLISH", "t-channel", "2")
    assert await asyncio.wait_for(received.get(), 5) == b"2"
    await subscriber.unsubscribe("t-channel")
    await subscriber.close()
    await connection.close()


async def test_p7_a_channel_given_up_while_subscriptions_return_does_not_hide_that_they_did() -> None:
    """A server that confirms the second channel only the first time."""
    confirmed_once: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        commands = hiredis.Reader()
        while data := await reader.read(4096):
            commands.feed(data)
            while command := commands.gets():
                if command[0] != b"SUBSCRIBE":
                    writer.write(b"+OK\r\n")
                for name in command[1:] if command[0] == b"SUBSCRIBE" else ():
                    if name == b"one" or name not in confirmed_once:
                        confirmed_once.append(name)
                        writer.write(b"*3\r\n$9\r\nsubscribe\r\n$3\r\n%b\r\n:1\r\n" % name)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    back = asyncio.Event()
    port = server.sockets[0].getsockname()[1]
    subscriber = Subscriber(f"redis://127.0.0.1:{port}", on_reconnect=back.set)
    async with asyncio.timeout(5):
        await subscriber.subscribe("one", lambda payload: None)
        await subscriber.subscribe("two", lambda payload: None)
    writers[0].transport.abort()
    await wait_until(lambda: confirmed_once.count(b"one") == 2)
    assert not back.is_set() and not subscriber.connected
    await subscriber.unsubscribe("two")
    await asyncio.wait_for(back.wait(), 5)
    await subscriber.close()
    server.close()
    await server.wait_closed()


async def test_a_server_that_stays_away_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    async def refused(*_: object) -> None:
        nonlocal attempts
        attempts += 1
        raise StoreUnavailable("away")

    monkeypatch.setattr(Link, "open", refused)
    subscriber = Subscriber("redis://127.0.0.1:1")
    waiting = asyncio.create_task(subscriber.subscribe("t-channel", lambda _: None))
    await wait_until(lambda: attempts >= 4)
    assert caplog.text.count("redis.subscribe_failed") == 1
    monkeypatch.setattr("selfhost_transport.redis_io.subscriptions.LOG_AGAIN_S", 0)
    await wait_until(lambda: attempts >= 5)
    assert caplog.text.count("redis.subscribe_failed") == 2
    await subscriber.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("url", ["http://x", "", "redis://host:port"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InvalidArgument):
        Address.parse(url)


def test_addresses() -> None:
    address = Address.parse("rediss://user:pw@host:7000/3?ssl_cert_reqs=none")
    assert (address.host, address.port, address.database) == ("host", 7000, 3)
    assert (address.username, address.password, address.tls is not None) == ("user", "pw", True)
    assert Address.parse("unix:///run/r.sock?db=1").path == "/run/r.sock"
