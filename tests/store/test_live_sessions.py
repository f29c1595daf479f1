"""What a deployment works on now, read without a scan of its keys, on a real Redis."""

from __future__ import annotations

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.fleet import Fleet
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.live_sessions import LiveSessions, RegisteredWorker
from selfhost_transport.store.occupancy import AttachmentCounts, OccupancyStore
from selfhost_transport.store.presence import PresenceStore
from selfhost_transport.store.turn_operations import CreateMessage
from selfhost_transport.store.turn_pauses import TurnPauses
from selfhost_transport.store.turn_store import TurnStore
from selfhost_transport.wire.message import Message
from tests.processes import wait_until
from tests.store.turns import LEASE_MS, request


async def test_running_waiting_and_attached_sessions_are_found(
    turns: TurnStore, connection: RedisConnection, keys: Keyspace
) -> None:
    live = LiveSessions(connection, keys)
    assert (await live.turns(["a"]), await live.names(["a"])) == ([], [])
    for session in ("chat:running", "chat:waiting", "other:waiting"):
        await turns.submit(request("t1", session=session))
    await turns.submit(request("t9", session="chat:of-b", agent="b"))
    lease = None
    while lease is None or lease.session != "chat:running":
        if lease is not None:
            await turns.hand_back(bucket_of(lease.session, keys.buckets), lease)
        lease = await turns.take(bucket_of("chat:running", keys.buckets), "a", "w1", 60_000)
    presence = PresenceStore(connection, keys)
    await presence.renew("gw-1")
    occupancy = OccupancyStore(connection, keys, presence)
    await occupancy.report("chat:read", "gw-1", AttachmentCounts(connections=1, subscribers=1))
    assert sorted(await live.turns(["a", "a"])) == [
        ("chat:running", "t1"), ("chat:waiting", "t1"), ("other:waiting", "t1"),
    ]  # fmt: skip
    assert set(await live.turns(["b"])) == {("chat:running", "t1"), ("chat:of-b", "t9")}
    # What runs is found whatever agents are asked about: its lease names none.
    assert await live.turns([]) == [("chat:running", "t1")]
    assert await live.names(["a"]) == ["chat:read", "chat:running", "chat:waiting", "other:waiting"]
    assert await live.names(["a", "b"], "chat:") == [
        "chat:of-b", "chat:read", "chat:running", "chat:waiting",
    ]  # fmt: skip
    await occupancy.report("chat:read", "gw-1", AttachmentCounts())
    assert "chat:read" not in await live.names(["a"])


async def test_a_suspended_turn_with_a_limit_counts_as_in_use(
    turns: TurnStore, connection: RedisConnection, keys: Keyspace
) -> None:
    await turns.submit(request("t1", session="chat:asked"))
    lease = await turns.take(bucket_of("chat:asked", keys.buckets), "a", "w1", LEASE_MS)
    assert lease is not None
    operations = [CreateMessage(Message(name="suspended"))]
    assert await TurnPauses(connection, keys).suspend(lease, ["call"], operations, limit_ms=60_000)
    live = LiveSessions(connection, keys)
    assert await live.turns(["a"]) == [], "it neither runs nor waits for a worker"
    assert await live.names([], "chat:") == ["chat:asked"]


async def test_workers_and_the_agents_that_each_serves(connection: RedisConnection, keys: Keyspace) -> None:
    fleet, live = Fleet(connection, keys), LiveSessions(connection, keys)
    for agent, worker in (("a", "w2"), ("b", "w1"), ("a", "w1")):
        await fleet.announce(agent, worker, 60_000)
    assert await live.workers(["b", "a", "none"]) == [
        RegisteredWorker("w1", ("a", "b")),
        RegisteredWorker("w2", ("a",)),
    ]
    assert await live.workers([]) == []


async def test_a_drain_reaches_the_workers(
    connection: RedisConnection, keys: Keyspace, redis_url: str
) -> None:
    heard: list[bytes] = []
    subscriber = Subscriber(redis_url)
    await subscriber.subscribe(f"{keys.base(0)}ctl", heard.append)
    await LiveSessions(connection, keys).drain("host 1:w%")
    await wait_until(lambda: heard)
    (word,) = heard
    assert word.startswith(b"drain ") and word.count(b" ") == 1, "a name is one word, whatever it holds"
    await subscriber.close()
