"""Slots that move while they are used: nothing fails, nothing runs on half of a slot, and calls keep their order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from redis.crc import key_slot

from selfhost_transport.accelerator import append_command
from selfhost_transport.errors import StoreUnavailable, TransportError
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.databases import SCRIPT_BEGINS
from selfhost_transport.redis_io.prepared_call import PreparedCall
from selfhost_transport.redis_io.subscriber import Subscriber
from tests.processes import wait_until
from tests.redis_io.clusters import Clustered, Move, clustered
from tests.redis_io.lua import NEXT, SEVERAL_NEXT, Lua

LONG = bool(os.environ.get("SELFHOST_TRANSPORT_LONG"))
# Names of its own, as the scripts of a session build them: only the first is a key of the call.
BOTH = Lua(
    SCRIPT_BEGINS + "local one = redis.call('RPUSH', KEYS[1], ARGV[1]) "
    "local two = redis.call('RPUSH', KEYS[1] .. ':twin', ARGV[1]) "
    "redis.call('PUBLISH', KEYS[1] .. DATABASE, ARGV[1]) return {one, two}",
    names_all_keys=False,
)
BUCKETS = ("s:{b1}:list", "s:{b2}:list")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    with clustered(tmp_path_factory.mktemp("moving")) as made:
        yield made


@pytest.fixture(autouse=True)
async def formed(cluster: Clustered) -> None:
    """The Cluster serves."""
    await wait_until(cluster.replicate, 30, "a replica that knows its primary")
    await wait_until(cluster.ready, 30, "servers that know each other")


def sharded(cluster: Clustered) -> bool:
    with redis.Redis(port=cluster.ports[0]) as server:
        return int(str(server.info("server")["redis_version"]).partition(".")[0]) >= 7


def url_of(cluster: Clustered) -> str:
    return f"{cluster.url}?notifications={'sharded' if sharded(cluster) else 'plain'}"


async def test_a_process_has_one_socket_per_server(cluster: Clustered) -> None:
    connection = RedisConnection(cluster.url, timeout_s=10)
    await asyncio.gather(*(connection.command("EXISTS", f"{{b{number}}}") for number in range(64)))
    with redis.Redis(port=cluster.ports[0]) as server:
        mine = [one for one in server.client_list() if one["cmd"] == "exists"]
    assert len(mine) == 1
    await connection.close()


async def test_a_script_never_sees_half_of_a_slot(cluster: Clustered) -> None:
    """Refused as a whole while the slot is open, although its only key is still there; then it runs elsewhere."""
    key = "s:{half}:list"
    connection = RedisConnection(url_of(cluster), timeout_s=10)
    assert await connection.call(BOTH, [key], ["before"]) == [1, 1]
    slot = key_slot(key.encode())
    source = cluster.owner_of(slot)
    move = Move.begin(cluster, slot, next(port for port in cluster.ports[:3] if port != source))
    with redis.Redis(port=source) as server:
        server.execute_command("MIGRATE", "127.0.0.1", move.target, f"{key}:twin", 0, 5000)
    held = connection.call(BOTH, [key], ["during"])
    await asyncio.sleep(0.2)  # long enough for several attempts
    assert not held.done()
    while move.step():
        pass
    move.finish()
    assert await held == [2, 2]
    assert await connection.command("LRANGE", f"{key}:twin", 0, -1) == [b"before", b"during"]
    await connection.close()


async def test_a_subscription_follows_its_slot(cluster: Clustered) -> None:
    key, received, missed = "s:{news}:list", list[bytes](), asyncio.Event()
    connection, subscriber = RedisConnection(url_of(cluster), timeout_s=10), Subscriber(url_of(cluster))
    await subscriber.subscribe(key, received.append, missed.set)
    await connection.call(BOTH, [key], ["one"])
    await wait_until(lambda: received == [b"one"])
    slot = key_slot(key.encode())
    source = cluster.owner_of(slot)
    cluster.move(slot, next(port for port in cluster.ports[:3] if port != source))
    if sharded(cluster):
        await asyncio.wait_for(missed.wait(), 10)
        assert subscriber.connected
    await connection.call(BOTH, [key], ["two"])
    await wait_until(lambda: received[-1] == b"two")
    await subscriber.unsubscribe(key)
    await connection.call(BOTH, [key], ["three"])
    await subscriber.subscribe("s:{news}:other", received.append)
    assert received[-1] == b"two"
    await subscriber.close()
    await connection.close()


async def test_a_subscription_survives_its_connection(cluster: Clustered) -> None:
    received, missed, back = list[bytes](), list[str](), asyncio.Event()
    connection = RedisConnection(url_of(cluster), timeout_s=10)
    subscriber = Subscriber(url_of(cluster), on_reconnect=back.set)
    names = [f"s:{{c{number}}}:list" for number in range(12)]
    for name in names:
        await subscriber.subscribe(
            name, received.append, (lambda: missed.append("")) if name == names[0] else None
        )
    for port in cluster.ports[:3]:
        with redis.Redis(port=port) as server:
            server.client_kill_filter(_type="pubsub")
    await asyncio.wait_for(back.wait(), 10)
    await wait_until(lambda: subscriber.connected)
    assert len(missed) == (1 if sharded(cluster) else 0)
    for name in names:
        await connection.call(BOTH, [name], [name])
    await wait_until(lambda: sorted(received) == sorted(name.encode() for name in names))
    await subscriber.close()
    await connection.close()


async def test_a_channel_that_is_refused_raises_and_disturbs_no_other(cluster: Clustered) -> None:
    for port in cluster.ports[:3]:
        with redis.Redis(port=port) as server:
            server.execute_command(
                "ACL SETUSER", "limited", "on", ">pw", "~*", "+@all", "resetchannels", "&s:{acl}:list"
            )
    received, limited = list[bytes](), url_of(cluster).replace("://", "://limited:pw@")
    connection, subscriber = RedisConnection(url_of(cluster), timeout_s=10), Subscriber(limited)
    await subscriber.subscribe("s:{acl}:list", received.append)
    with pytest.raises(TransportError, match="permission"):
        await subscriber.subscribe("s:{acl}:other", received.append)
    assert subscriber.connected
    await connection.call(BOTH, ["s:{acl}:list"], ["one"])
    await wait_until(lambda: received == [b"one"])
    await subscriber.close()
    with pytest.raises(StoreUnavailable):
        await subscriber.subscribe("s:{acl}:list", received.append)
    await connection.close()
    for port in cluster.ports[:3]:
        with redis.Redis(port=port) as server:
            server.execute_command("ACL DELUSER", "limited")


class Machine(RuleBasedStateMachine):
    """Calls that are not awaited, in any interleaving with the stages of a move and with lost sockets."""

    cluster: Clustered

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.connection = RedisConnection(self.cluster.url, timeout_s=20)
        self.sent: dict[str, int] = dict.fromkeys(BUCKETS, 0)
        self.replies: dict[str, list[asyncio.Future[Any]]] = {name: [] for name in BUCKETS}
        self.move: Move | None = None
        self.appended: dict[str, int] = dict.fromkeys(BUCKETS, 0)
        self.answers: list[asyncio.Future[bytes]] = []
        self.appends = {
            name: self.loop.run_until_complete(self._prepare(f"{name}:numbers")) for name in BUCKETS
        }
        for name in BUCKETS:
            self.loop.run_until_complete(self._command("DEL", name, f"{name}:twin"))
            self.loop.run_until_complete(self._command("DEL", f"{name}:numbers"))

    async def _prepare(self, key: str) -> PreparedCall:
        return self.connection.prepare(NEXT, [key], [], misplaced=b"gap", several=SEVERAL_NEXT)

    async def _command(self, *words: str | int) -> Any:
        return await self.connection.command(*words)

    @rule(name=st.sampled_from(BUCKETS), count=st.integers(1, 20))
    def call(self, name: str, count: int) -> None:
        async def start() -> None:
            for _ in range(count):
                self.sent[name] += 1
                self.replies[name].append(self.connection.call(BOTH, [name], [self.sent[name]]))
            await asyncio.sleep(0)

        self.loop.run_until_complete(start())

    @rule(name=st.sampled_from(BUCKETS), count=st.integers(1, 20))
    def append(self, name: str, count: int) -> None:
        """Calls that are sent as one, of which each follows on the last one."""

        async def start() -> None:
            one = self.appends[name]
            for _ in range(count):
                self.answers.append(asyncio.get_running_loop().create_future())
                one.call(append_command(one.head, self.appended[name], b"", b""), self.answers[-1], 20)
                self.appended[name] += 1
            await asyncio.sleep(0)

        self.loop.run_until_complete(start())

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.12]))
    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    @precondition(lambda self: self.move is None)
    @rule(name=st.sampled_from(BUCKETS), which=st.integers(1, 2))
    def begin(self, name: str, which: int) -> None:
        slot = key_slot(name.encode())
        ports = self.cluster.ports[:3]
        owner = ports.index(self.cluster.owner_of(slot))
        self.move = Move.begin(self.cluster, slot, ports[(owner + which) % 3])

    @precondition(lambda self: self.move is not None)
    @rule()
    def step(self) -> None:
        assert self.move is not None
        self.move.step(1)

    @precondition(lambda self: self.move is not None)
    @rule()
    def finish(self) -> None:
        assert self.move is not None
        while self.move.step():
            pass
        self.move.finish()
        self.move = None

    @precondition(lambda self: self.move is None)
    @rule()
    def compare(self) -> None:
        async def all_done() -> None:
            async with asyncio.timeout(20):
                assert set(await asyncio.gather(*self.answers)) <= {b"ok"}
            for name in BUCKETS:
                numbers = list(range(1, self.sent[name] + 1))
                async with asyncio.timeout(20):
                    assert await asyncio.gather(*self.replies[name]) == [[n, n] for n in numbers]
                for key in (name, f"{name}:twin"):
                    found = await self.connection.command("LRANGE", key, 0, -1)
                    assert [int(one) for one in found] == numbers
                found = await self.connection.command("LRANGE", f"{name}:numbers", 0, -1)
                assert [int(one) for one in found] == list(range(self.appended[name]))

        self.loop.run_until_complete(all_done())

    @invariant()
    def no_call_failed(self) -> None:
        for replies in (*self.replies.values(), self.answers):
            assert not [reply for reply in replies if reply.done() and reply.exception() is not None]

    def teardown(self) -> None:
        if self.move is not None:
            self.finish()
        self.compare()
        self.loop.run_until_complete(self.connection.close())
        self.loop.close()


def test_the_order_of_a_sessions_calls_survives_every_move(cluster: Clustered) -> None:
    Machine.cluster = cluster
    machine = Machine.TestCase
    machine.settings = settings(
        max_examples=200 if LONG else 8,
        stateful_step_count=20 if LONG else 12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine().runTest()
