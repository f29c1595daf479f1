"""A deployment's data in more buckets is what it was: turns go on, queues and leases are found, members leave in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import redis

from selfhost_transport.errors import InvalidArgument, NotFound, SessionErased, StoreUnsuitable
from selfhost_transport.migration import servers
from selfhost_transport.migration.copying import Copier
from selfhost_transport.migration.migration import Migration
from selfhost_transport.migration.servers import Side
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store import scripts
from selfhost_transport.store.duties import Duties
from selfhost_transport.store.ended_turns import EndedTurns
from selfhost_transport.store.erasure import SessionErasure
from selfhost_transport.store.format import FORMAT, MIGRATING, MOVED, check_format
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.presence import Holder, PresenceStore
from selfhost_transport.store.push import PushStore
from selfhost_transport.store.turn_store import TurnStore
from selfhost_transport.wire.actions import PresenceAction
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.presence import PresenceMessage
from tests.leaks import unowned_keys
from tests.processes import wait_until
from tests.store.everything import mentions
from tests.store.turns import LEASE_MS, chunk, open_text
from tests.worker.session import Room

OLD, NEW = 4, 256
SESSIONS = [f"chat:{number} ü" for number in range(12)]


@dataclass
class Deployment:
    """One side with its stores."""

    side: Side
    keys: Keyspace

    def room(self, session: str) -> Room:
        return Room(self.side.redis, self.keys, session)

    @property
    def turns(self) -> TurnStore:
        return TurnStore(self.side.redis, self.keys)

    async def take(self, session: str) -> str | None:
        bucket = bucket_of(session, self.keys.buckets)
        lease = await self.turns.take(bucket, "assistant", "w1", LEASE_MS)
        return None if lease is None else lease.session


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    """Its two databases are two servers for all that matters here."""
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(autouse=True)
def empty(server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with nothing, and does not listen for processes that this one knows to be absent."""
    monkeypatch.setattr(servers, "_LISTENING_S", 0.3)
    yield
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


@pytest.fixture
async def old(server: EmbeddedRedis) -> AsyncIterator[Deployment]:
    side = Side(server.url, "old")
    await check_format(side.redis, side.prefix)
    yield Deployment(side, Keyspace(side.prefix, OLD))
    await side.close()


@pytest.fixture
async def new(server: EmbeddedRedis) -> AsyncIterator[Deployment]:
    side = Side(server.url.replace("/0", "/1"), "new")
    yield Deployment(side, Keyspace(side.prefix, NEW))
    await side.close()


def migration(old: Deployment, new: Deployment, buckets: int = NEW) -> Migration:
    return Migration(old.side, new.side, OLD, buckets, lambda what, keys: None)


async def test_everything_is_where_it_is_looked_for(
    old: Deployment, new: Deployment, server: EmbeddedRedis
) -> None:
    exporter = EndedTurns(old.side.redis, old.keys, "archive")
    await exporter.open(100)
    presence = PresenceStore(old.side.redis, old.keys, StoreOptions(presence_lease_ms=500))
    holder = Holder("conn", "socket", "node", remain_ms=500)
    await _streamed(old, "streamed")
    streamed = await old.room("streamed").history()
    waiting = {}
    for number, session in enumerate(SESSIONS):
        enter = PresenceMessage(PresenceAction.ENTER, f"conn:{number}:0", "ann", data="here")
        await presence.change(session, holder, [enter])
        waiting[session] = await old.room(session).send(f"first of {session}")
    cancelled = await old.room(SESSIONS[0]).send("cancelled")
    await old.room(SESSIONS[0]).cancel(cancelled)
    before = {
        session: (await old.room(session).log(), await old.room(session).history()) for session in SESSIONS
    }
    epochs = {session: (await old.room(session).sessions.open(session)).epoch for session in SESSIONS}

    move = migration(old, new)
    await move.run()

    with redis.Redis.from_url(server.url.replace("/0", "/1"), decode_responses=True) as client:
        assert not unowned_keys(client, new.side.prefix)
    assert move.done["split"] > 0 and move.done["compared"] > 0
    for session in SESSIONS:
        room = new.room(session)
        assert (await room.log(), await room.history()) == before[session]
        assert (await room.sessions.open(session)).epoch == epochs[session]
        assert [turn.turn_id for turn in await new.turns.active(session)] == [waiting[session]]
    assert await new.room("streamed").history() == streamed
    assert "one two" in [message.data for message in streamed]
    # Each bucket's queue has the turns of its own sessions.
    taken = [await new.take(session) for session in SESSIONS]
    assert sorted(filter(None, taken)) == sorted(SESSIONS)
    ended = EndedTurns(new.side.redis, new.keys, "archive")
    assert await ended.waiting() == 1
    # Every bucket has the exporter, also one whose number is new.
    for session, turn in waiting.items():
        await new.room(session).cancel(turn)
    assert await ended.waiting() == 1 + len(SESSIONS)
    there = PresenceStore(new.side.redis, new.keys, StoreOptions(presence_lease_ms=500))
    assert [await there.count(session) for session in SESSIONS] == [1] * len(SESSIONS)

    async def all_left() -> bool:
        await there.sweep()
        return not any([await there.count(session) for session in SESSIONS])

    # Their process is dead, and does not come back.
    await wait_until(all_left, 10, "the members of a process that is gone leave")


async def _streamed(side: Deployment, session: str) -> None:
    """An answer that was appended to: its text is a key of its own."""
    await side.room(session).send("answer")
    lease = await side.turns.take(bucket_of(session, side.keys.buckets), "assistant", "w0", LEASE_MS)
    assert lease is not None and lease.session == session
    text = await open_text(side.turns, lease)
    for data in ("one ", "two"):
        await chunk(side.turns, lease, text, data)


async def test_leases_expire_at_the_target(old: Deployment, new: Deployment) -> None:
    session = SESSIONS[3]
    turn = await old.room(session).send("one")
    assert await old.turns.take(bucket_of(session, OLD), "assistant", "w1", 1) is not None
    await migration(old, new).run()
    assert await new.turns.reap(bucket_of(session, NEW), 0) == (turn, session, "retried")
    assert await new.take(session) == session


async def test_only_one_side_can_be_started(old: Deployment, new: Deployment) -> None:
    await old.room("a").send("one")
    await migration(old, new).run()
    assert await new.side.redis.command("GET", f"{new.side.prefix}:format") == str(FORMAT).encode()
    assert await new.side.redis.command("HGET", f"{new.side.prefix}:deployment", "buckets") == b"256"
    await check_format(new.side.redis, new.side.prefix)
    with pytest.raises(StoreUnsuitable, match="migrated to another Redis"):
        await check_format(old.side.redis, old.side.prefix)
    with pytest.raises(StoreUnsuitable, match=f"has the format '{MOVED}'"):
        await migration(old, new).run()


async def test_times_to_live_are_kept(old: Deployment, new: Deployment) -> None:
    await old.side.redis.command("SET", f"{old.side.prefix}:secret", "x", "PX", 60_000)
    await old.side.redis.command("SET", f"{old.side.prefix}:{{b1}}:s:forever", "x")
    await old.side.redis.command("SET", f"{old.side.prefix}:{{b1}}:stats", "x", "PX", 40_000)
    await migration(old, new).run()
    assert 50_000 < await new.side.redis.command("PTTL", f"{new.side.prefix}:secret") <= 60_000
    assert 30_000 < await new.side.redis.command("PTTL", f"{new.side.prefix}:{{b1}}:stats") <= 40_000
    base = new.keys.base_of("forever")
    assert await new.side.redis.command("PTTL", f"{base}s:forever") == -1


async def test_an_interrupted_one_goes_on(
    old: Deployment, new: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        await old.side.redis.command("SET", f"{old.side.prefix}:{{b0}}:s:many {number}", number)
    copied: list[bytes] = []
    copy, breaks = Copier.copy, 2

    async def counted(self: Copier, keys: list[bytes]) -> object:
        nonlocal breaks
        breaks -= 1
        if not breaks:
            raise StoreUnsuitable("the power went")
        copied.extend(keys)
        return await copy(self, keys)

    monkeypatch.setattr(Copier, "copy", counted)
    with pytest.raises(StoreUnsuitable, match="the power went"):
        await migration(old, new).run()
    assert await new.side.redis.command("GET", f"{new.side.prefix}:format") == MIGRATING.encode()
    with pytest.raises(StoreUnsuitable, match="has not ended"):
        await check_format(new.side.redis, new.side.prefix)
    first = len(copied)
    assert first
    await migration(old, new).run()
    assert len(copied) == len(set(copied)) >= 300


async def test_a_deployment_that_was_started_meanwhile_is_copied_anew(
    old: Deployment, new: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await old.room("a").send("one")

    async def fails(self: Migration, copier: Copier) -> None:
        raise StoreUnsuitable("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(Migration, "_compare", fails)
        with pytest.raises(StoreUnsuitable, match="the power went"):
            await migration(old, new).run()
    await check_format(old.side.redis, old.side.prefix)
    await old.room("b").send("two")
    await migration(old, new).run()
    assert len(await new.room("b").history()) == len(await old.room("b").history()) > 0


async def test_what_cannot_be_migrated_is_refused(old: Deployment, new: Deployment) -> None:
    with pytest.raises(NotFound, match="there is no deployment"):
        await Migration(new.side, old.side, NEW, NEW, lambda what, keys: None).run()
    with pytest.raises(InvalidArgument, match="must be a multiple"):
        await migration(old, new, 6).run()
    await old.side.redis.command("SET", f"{old.side.prefix}:{{b0}}:unheard-of", "x")
    with pytest.raises(StoreUnsuitable, match="does not know: 'unheard-of'"):
        await migration(old, new).run()


async def test_running_processes_are_noticed(old: Deployment, new: Deployment, server: EmbeddedRedis) -> None:
    subscriber = Subscriber(server.url)
    await subscriber.subscribe(f"{old.side.prefix}:{{b1}}:ctl", lambda payload: None)
    with pytest.raises(StoreUnsuitable, match="gateways or workers are running"):
        await migration(old, new).run()
    await subscriber.close()
    duties = Duties(old.side.redis, old.keys)
    working = asyncio.create_task(_take_duties(duties))
    with pytest.raises(StoreUnsuitable, match="gateways or workers are running"):
        await migration(old, new).run()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    # The last duty of a process that has ended says nothing.
    assert await duties.falls_to_me("retention", 60_000)
    await migration(old, new).run()


async def _take_duties(duties: Duties) -> None:
    while True:
        await duties.falls_to_me("reap", 5000)
        await asyncio.sleep(0.02)


async def test_a_target_in_use_is_not_touched(old: Deployment, new: Deployment) -> None:
    await check_format(new.side.redis, new.side.prefix)
    with pytest.raises(StoreUnsuitable, match="has a deployment"):
        await migration(old, new).run()
    assert await new.room("a").history() == []


async def test_an_erased_session_stays_closed_and_a_half_erased_one_can_be_finished(
    old: Deployment, new: Deployment, server: EmbeddedRedis
) -> None:
    gone, half = SESSIONS[1], SESSIONS[2]
    for session in (gone, half):
        await old.room(session).sessions.publish(session, [Message(name="n", data="hello")])
    await _erasure(old).erase(gone, "olga")
    base = old.keys.base_of(half)
    begin = scripts.call("erase_begin", meta=f"{base}s:{half}", base=base, session=half, kept_out_ms=60_000)
    await old.side.redis.call(*begin)

    await migration(old, new).run()

    for session in (gone, half):
        with pytest.raises(SessionErased):
            await new.room(session).sessions.open(session)
    assert (await _erasure(new).erase(half, "olga")).publishes == 1
    with redis.Redis.from_url(server.url.replace("/0", "/1")) as client:
        assert mentions(client, new.side.prefix, half) == []


def _erasure(side: Deployment) -> SessionErasure:
    return SessionErasure(side.side.redis, side.keys, side.turns, PushStore(side.side.redis, side.keys))
