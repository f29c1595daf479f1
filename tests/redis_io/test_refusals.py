"""A server that refuses calls for a while: each call is repeated, and ends by its own time-out whatever follows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count

import pytest
import redis

from selfhost_transport.accelerator import append_command
from selfhost_transport.errors import StoreFull, StoreUnavailable, StoreUnsuitable
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.refusals import (
    RedisFailure,
    Refusal,
    as_transport_error,
    code_of,
    refusal_of,
)
from selfhost_transport.redis_io.subscriber import Subscriber
from tests.processes import wait_until
from tests.promptness import Stopwatch, assert_quick, prompt
from tests.redis_io.lua import NEXT, SEVERAL_NEXT, Lua, is_busy, run_forever

RUNS = 12 if os.environ.get("SELFHOST_TRANSPORT_LONG") else 2
TIMEOUT_S = 0.5
MARGIN_S = 1.0
"""A call may take this much longer than its time, on a machine that is busy with other things."""


PUSH = Lua("return redis.call('RPUSH', KEYS[1], ARGV[1])")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis() as one:
        yield one


@pytest.fixture
def admin(server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as connection:
        yield connection
        with contextlib.suppress(redis.ResponseError):
            connection.script_kill()  # where a test has left one that runs
        connection.config_set("lua-time-limit", 5000)
        connection.replicaof("NO", "ONE")
        connection.config_set("replica-read-only", "yes")
        connection.config_set("min-replicas-to-write", 0)
        connection.config_set("maxmemory", 0)
        connection.flushall()


Connect = Callable[[float], RedisConnection]


@pytest.fixture
async def connect(server: EmbeddedRedis) -> AsyncIterator[Connect]:
    """Connections with a time-out in seconds, closed after the test."""
    made: list[RedisConnection] = []

    def one(timeout_s: float) -> RedisConnection:
        made.append(RedisConnection(server.url, timeout_s=timeout_s))
        return made[-1]

    yield one
    for connection in made:
        await connection.close()


class Load:
    """Reads and writes, many at a time, each of which notes how long it took and how it ended."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self.longest_s = 0.0
        self.refused = 0
        self.written: list[float] = []

    async def one(self) -> None:
        for number in count():
            began = time.monotonic()
            write = self._connection.call(PUSH, ["load"], [number])
            # Answered well while the write is refused, and behind it on the same socket.
            reads = [self._connection.command("LLEN", "load") for _ in range(3)]
            ended = await asyncio.gather(write, *reads, return_exceptions=True)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            if isinstance(ended[0], StoreUnavailable):
                self.refused += 1
            else:
                assert isinstance(ended[0], int), ended[0]
                self.written.append(time.monotonic())
            await asyncio.sleep(0)


@asynccontextmanager
async def loaded(connection: RedisConnection, workers: int = 20) -> AsyncIterator[Load]:
    load = Load(connection)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(load.one()) for _ in range(workers)]
        try:
            yield load
        finally:
            for task in tasks:
                task.cancel()


Switch = Callable[[redis.Redis, bool], object]


def as_replica(admin: redis.Redis, on: bool) -> None:
    admin.replicaof(*(("127.0.0.1", "1") if on else ("NO", "ONE")))


def read_only(admin: redis.Redis, on: bool) -> None:
    admin.replicaof("127.0.0.1", "1")
    admin.config_set("replica-read-only", "yes" if on else "no")


def without_replicas(admin: redis.Redis, on: bool) -> None:
    admin.config_set("min-replicas-to-write", int(on))


@pytest.mark.parametrize("run", range(RUNS))
@pytest.mark.parametrize("switch", [as_replica, read_only])
@prompt
async def test_a_server_that_is_read_only_for_longer_than_calls_wait(
    connect: Connect, admin: redis.Redis, switch: Switch, run: int
) -> None:
    connection = connect(TIMEOUT_S)
    async with loaded(connection) as load:
        await wait_until(lambda: len(load.written) > 100)
        switch(admin, True)
        await wait_until(lambda: load.refused >= 40)
        switch(admin, False)
        watch, before = Stopwatch(), len(load.written)
        await wait_until(lambda: len(load.written) > before + 100, what="writes after the server is back")
        watch.assert_below(2.5)
    assert_quick(load.longest_s, TIMEOUT_S + MARGIN_S)


@prompt
async def test_calls_end_by_their_own_time_one_by_one(connect: Connect, admin: redis.Redis) -> None:
    connection = connect(TIMEOUT_S)
    await connection.command("PING")
    as_replica(admin, True)
    began = time.monotonic()
    took: dict[float, float] = {}

    async def write(retry_s: float) -> None:
        with pytest.raises(StoreUnavailable, match="READONLY"):
            await connection.call(PUSH, ["k"], [1], retry_s=retry_s)
        took[retry_s] = time.monotonic() - began

    await asyncio.gather(*(write(retry_s) for retry_s in (0.3, 1.2, 0.7)))
    assert all(retry_s <= took[retry_s] for retry_s in took), took
    assert connection.in_flight == 0
    assert_quick(max(took[retry_s] - retry_s for retry_s in took), MARGIN_S)


@prompt
async def test_a_call_that_the_server_does_not_answer_ends_although_others_are_answered(
    connect: Connect, admin: redis.Redis
) -> None:
    """A queue before a slow server moves on, but longer than a call's time."""
    connection = connect(TIMEOUT_S)
    slow = Lua("local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 1 do end return 1")
    calls = [connection.call(slow, ["k"], [], retry_s=TIMEOUT_S) for _ in range(3)]
    watch = Stopwatch()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    took = watch.seconds
    assert isinstance(ended[-1], StoreUnavailable) and "not known" in str(ended[-1])
    assert_quick(took, TIMEOUT_S + MARGIN_S)


@pytest.mark.parametrize("together", [1, 7])
@pytest.mark.parametrize("switch", [as_replica, without_replicas])
async def test_calls_that_depend_on_earlier_ones_keep_their_order_through_a_refusal(
    connect: Connect, admin: redis.Redis, switch: Switch, together: int
) -> None:
    """The server takes writes again while a call behind a refused one is on its way already. `together`: sent as one."""
    connection = connect(20)
    connection.keep_loaded([NEXT, SEVERAL_NEXT])
    repeated = connection.prepare(NEXT, ["n"], [], misplaced=b"gap", several=SEVERAL_NEXT)
    loop = asyncio.get_running_loop()
    answers: list[asyncio.Future[bytes]] = []
    for number in range(3000):
        if number % 1000 in (300, 600):
            await asyncio.to_thread(switch, admin, number % 1000 == 300)
        answers.append(loop.create_future())
        repeated.call(append_command(repeated.head, number, b"", b""), answers[-1], 5)
        if number % together == 0:
            await asyncio.sleep(0)
    assert set(await asyncio.gather(*answers)) == {b"ok"}
    assert await connection.command("LLEN", "n") == 3000


@prompt
async def test_a_full_server_holds_what_may_be_repeated_and_refuses_the_rest_at_once(
    connect: Connect, admin: redis.Redis
) -> None:
    admin.flushall()
    connection = connect(20)
    await connection.command("PING")
    admin.config_set("maxmemory", 1)
    watch = Stopwatch()
    with pytest.raises(StoreFull):
        await connection.call(PUSH, ["k"], [1])
    took = watch.seconds
    held = connection.call(PUSH, ["k"], [1], retry_s=20)
    with pytest.raises(StoreFull):
        await connection.call(PUSH, ["k"], [1], retry_s=0.3)
    assert not held.done()
    admin.config_set("maxmemory", 0)
    assert await asyncio.wait_for(held, 20) == 1
    assert_quick(took, MARGIN_S)


@prompt
async def test_reads_are_answered_while_writes_are_refused(connect: Connect, admin: redis.Redis) -> None:
    admin.flushall()
    connection = connect(20)
    await connection.command("PING")
    without_replicas(admin, True)
    write = connection.command("SET", "k", "v")
    took = []
    for _ in range(3):
        watch = Stopwatch()
        assert await connection.command("GET", "k") is None
        took.append(watch.seconds)
    assert not write.done() and connection.connected
    without_replicas(admin, False)
    assert await asyncio.wait_for(write, 20) == b"OK"
    assert_quick(max(took), MARGIN_S)


async def test_a_busy_server_is_waited_for(
    connect: Connect, server: EmbeddedRedis, admin: redis.Redis
) -> None:
    connection = connect(20)
    await connection.command("PING")
    limit = "lua-time-limit"
    admin.config_set(limit, 50)
    endless = asyncio.create_task(asyncio.to_thread(run_forever, server.url))
    await wait_until(lambda: is_busy(admin))
    call = connection.call(PUSH, ["k"], [1])
    await asyncio.wait([call], timeout=0.3)
    assert not call.done()
    admin.script_kill()
    assert await asyncio.wait_for(call, 20) == 1
    await endless


async def test_a_subscription_that_is_refused_for_good_is_an_error_and_not_a_silence(
    server: EmbeddedRedis, admin: redis.Redis
) -> None:
    admin.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "+@all", "resetchannels", "&mine:*")  # type: ignore[no-untyped-call]
    subscriber = Subscriber(server.url.replace("://", "://deaf:pw@"))
    await asyncio.wait_for(subscriber.subscribe("mine:1", lambda _: None), 5)
    with pytest.raises(StoreUnsuitable, match="refuses these credentials"):
        await asyncio.wait_for(subscriber.subscribe("other", lambda _: None), 5)
    assert subscriber.connected
    await subscriber.close()


async def test_a_subscription_that_a_busy_server_refuses_is_made_later(
    server: EmbeddedRedis, admin: redis.Redis
) -> None:
    subscriber = Subscriber(server.url)
    await subscriber.subscribe("one", lambda _: None)
    admin.config_set("lua-time-limit", 10)
    endless = asyncio.create_task(asyncio.to_thread(run_forever, server.url))
    await wait_until(lambda: is_busy(admin))
    second = asyncio.create_task(subscriber.subscribe("two", lambda _: None))
    await asyncio.wait([second], timeout=0.5)
    assert not second.done()
    admin.script_kill()
    await asyncio.wait_for(second, 20)
    await endless
    await subscriber.close()


TEXTS = {
    "READONLY You can't write against a read only replica. script: 5, on @user_script:1.": Refusal.ELSEWHERE,
    "ERR Error running script (call to f_b9): @user_script:1: @user_script: 1: -READONLY You can't write": Refusal.ELSEWHERE,
    "LOADING Redis is loading the dataset in memory": Refusal.ELSEWHERE,
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": Refusal.ELSEWHERE,
    "MOVED 866 127.0.0.1:7001": Refusal.ELSEWHERE,
    "ASK 866 127.0.0.1:7001": Refusal.MOVING,
    "TRYAGAIN Multiple keys request during rehashing of slot": Refusal.MOVING,
    "CLUSTERDOWN The cluster is down": Refusal.ELSEWHERE,
    "NOREPLICAS Not enough good replicas to write.": Refusal.LATER,
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": Refusal.LATER,
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist": Refusal.LATER,
    "ERR Error running script (call to f_b9): @user_script:1: @user_script: 1: -MISCONF Redis is": Refusal.LATER,
    "OOM command not allowed when used memory > 'maxmemory'.": Refusal.FULL,
    "BUSYGROUP Consumer Group name already exists": Refusal.FINAL,
    "WRONGTYPE Operation against a key holding the wrong kind of value": Refusal.FINAL,
    "ERR unknown command 'READONLYISH', with args beginning with: ": Refusal.FINAL,
    "ERR user_script:3: OOM is what someone wrote": Refusal.FINAL,
}


@pytest.mark.parametrize("text", TEXTS)
def test_refusals_are_distinguished_by_their_code(text: str) -> None:
    assert refusal_of(text) is TEXTS[text]
    error = as_transport_error(text)
    kinds = {Refusal.FULL: StoreFull, Refusal.FINAL: StoreUnsuitable}
    assert type(error) is kinds.get(TEXTS[text], RedisFailure)
    assert error.retryable == (TEXTS[text] is not Refusal.FINAL)


def test_the_code_of_an_error_without_one() -> None:
    assert code_of("something odd") == ""
