"""An erased session leaves nothing, and nothing brings it back (OPS-12)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import orjson
import pytest
import redis

from selfhost_transport.errors import LeaseLost, NotFound, SessionErased
from selfhost_transport.settings import load_settings
from selfhost_transport.store import scripts
from selfhost_transport.store.ended_turns import Ended
from selfhost_transport.store.entries import MessageOperation, Ref
from selfhost_transport.store.erasure import PER_STEP, SessionErasure
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.occupancy import AttachmentCounts
from selfhost_transport.store.presence import Holder
from selfhost_transport.store.push import PushSubscription
from selfhost_transport.store.stores import Stores
from selfhost_transport.store.turn_operations import OpenText
from selfhost_transport.store.turn_store import CancelFilter, Lease, Policy, Scope
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.actions import AnnotationAction, MessageAction, PresenceAction
from selfhost_transport.wire.annotation import Annotation
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.presence import PresenceMessage
from selfhost_transport.wire.serial import Position
from tests.processes import wait_until
from tests.store.everything import mentions
from tests.store.slow_scripts import slow_scripts
from tests.store.turns import LEASE_MS, chunk, open_text, request

EXPORTER = "webhook.backend"
NAME = "marked 7:session"


@pytest.fixture
async def stores(redis_url: str, redis_prefix: str) -> AsyncIterator[Stores]:
    stores = await Stores.open(load_settings(redis=redis_url, redis_prefix=redis_prefix))
    yield stores
    await stores.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@dataclass
class Filled:
    """What others still hold of the session: a message, and a turn that runs, with its open text."""

    ref: Ref
    lease: Lease
    text: OpenText


async def fill(stores: Stores, session: str = NAME) -> Filled:
    """Something in every family of keys that a session has."""
    queue = stores.ended_turns(EXPORTER)
    await queue.open(100)
    published = await stores.sessions.publish(session, [Message(name="n", data="hello")], publish_id="p-1")
    ref = Ref(published.position)
    await stores.sessions.append(session, ref, " there", publish_id="p-2")
    for text in ("one", "two"):
        change = Message(data=text)
        await stores.sessions.replace(session, ref, MessageAction.UPDATE, change, MessageOperation("alice"))
    annotation = Annotation(
        action=AnnotationAction.CREATE, type="likes:multiple.v1", name="up", client_id="bob"
    )
    await stores.annotations.give(session, [(ref, annotation)], publish_id="p-3")
    for connection in ("c1", "c2"):
        member = PresenceMessage(action=PresenceAction.ENTER, client_id="alice", data="here")
        holder = Holder(connection, f"o-{connection}", "node-1")
        await stores.presence.change(session, holder, [member], publish_id=connection)
    await stores.presence.leave(session, "c2")
    await stores.occupancy.report(session, "node-1", AttachmentCounts(1, 1, 1), ["alice"])
    lease, text_of_turn = await fill_turns(stores, session)
    await fill_pushes(stores, session)
    return Filled(ref, lease, text_of_turn)


async def fill_turns(stores: Stores, session: str) -> tuple[Lease, OpenText]:
    """A cancel that came early; turns that are dead, exported, given up, run, are steered, and wait."""
    turns, base = stores.turns, stores.keys.base_of(session)
    early = Message(name=h.AI_CANCEL, client_id="alice", extras=h.make_extras({h.RUN_ID: "later"}))
    await turns.cancels.cancel(session, CancelFilter(Scope.TURN, "later"), early)
    bucket = bucket_of(session, stores.keys.buckets)
    for turn in ("dies", "runs", "waits", "is ready"):
        policy = Policy.QUEUE if turn == "waits" else Policy.CONCURRENT
        await turns.submit(request(turn, session=session, max_attempts=1, policy=policy))
        if turn == "dies":
            assert await turns.take(bucket, "a", "w1", 1)
            await wait_until(lambda: turns.reap(bucket), 5)
    queue = stores.ended_turns(EXPORTER)
    taken = await queue.take(bucket, 60_000)
    assert isinstance(taken, Ended) and taken.event == "ended"
    await queue.bury(taken, "refused")
    assert isinstance(await queue.take(bucket, 60_000), Ended)
    lease = await turns.take(bucket, "a", "w1", LEASE_MS)
    assert lease is not None and lease.turn_id == "runs"
    text = await open_text(turns, lease)
    await chunk(turns, lease, text, "a token")
    await stores.redis.command("RPUSH", f"{base}y:{lease.turn_id}:{session}", "a steer")
    return lease, text


async def fill_pushes(stores: Stores, session: str) -> None:
    """One that waits, and one that was given up."""
    one = PushSubscription("https://push.example/1", "k", "a", "s", 2**42)
    await stores.push.subscribe("alice", one, 60_000)
    content = orjson.dumps({"type": "turn.ended", "session": session, "turnId": "t"})
    await stores.push.queue("e-1", "alice", content, wait_ms=0, keep_ms=60_000)
    await stores.push.queue("e-2", "alice", content, wait_ms=60_000, keep_ms=60_000)
    (delivery,) = await stores.push.take(1, 1000)
    await stores.push.bury(delivery, "gone")


def families(keys: list[str]) -> set[str]:
    return {key.partition("}:")[2].partition(":")[0] for key in keys}


async def test_nothing_of_an_erased_session_remains(
    stores: Stores, client: redis.Redis, redis_prefix: str
) -> None:
    await fill(stores)
    await stores.sessions.publish("other", [Message(name="n", data="stays")])
    before = families(mentions(client, redis_prefix, NAME))
    # All families of keys.py that have something of a session; `erasing` and `erased` come with the erasure.
    assert before == {
        "s", "p", "l", "h", "m", "x", "v", "b", "z", "g", "a", "open", "w", "i", "c", "e", "t", "f", "y", "r", "k", "u", "j",
        "o", "q", "leases", "dead", "ended", "undelivered", "used", "d",
    }  # fmt: skip

    erased = await stores.erasure.erase(NAME, "olga")

    assert mentions(client, redis_prefix, NAME) == []
    assert (erased.session, erased.turns_cancelled, erased.receipts_expire) == (NAME, 3, False)
    digest = hashlib.sha1(NAME.encode()).hexdigest()
    (tombstone,) = mentions(client, redis_prefix, digest)
    assert 0 < client.pttl(tombstone) <= 86_400_000
    assert len((await stores.history.page("other", Query())).messages) == 1
    # Once more finds nothing, and is no error.
    again = await stores.erasure.erase(NAME, "olga")
    assert (again.publishes, again.letters, again.turns_cancelled) == (0, 0, 0)


async def test_nothing_brings_an_erased_session_back(
    stores: Stores, client: redis.Redis, redis_prefix: str
) -> None:
    held = await fill(stores)
    await stores.erasure.erase(NAME, "olga")

    # A late worker.
    with pytest.raises(LeaseLost):
        await chunk(stores.turns, held.lease, held.text, "late")
    with pytest.raises(LeaseLost):
        await open_text(stores.turns, held.lease)
    bucket = bucket_of(NAME, stores.keys.buckets)
    assert await stores.turns.renew(bucket, [held.lease], LEASE_MS) == [held.lease.turn_id]
    assert await stores.turns.take(bucket, "a", "w2", LEASE_MS) is None
    assert await stores.turns.reap(bucket) is None and await stores.pauses.expire(bucket) is None
    # An exporter.
    assert await stores.ended_turns(EXPORTER).take(bucket, 1000) is None
    # Clients that come back, send, change, annotate, enter, leave, cancel.
    publish = stores.sessions.publish(NAME, [Message(name="n", data="again")])
    enter = PresenceMessage(action=PresenceAction.ENTER, client_id="alice")
    for refused in (
        stores.sessions.open(NAME),
        stores.sessions.read_after(NAME, Position.ZERO),
        publish,
        stores.turns.submit(request("t9", session=NAME)),
        stores.presence.change(NAME, Holder("c1", "o-c1", "node-1"), [enter]),
    ):
        with pytest.raises(SessionErased):
            await refused
    with pytest.raises(NotFound):
        await stores.sessions.append(NAME, held.ref, "again")
    annotation = Annotation(action=AnnotationAction.CREATE, type="likes:total.v1", client_id="bob")
    with pytest.raises(NotFound):
        await stores.annotations.give(NAME, [(held.ref, annotation)])
    early = Message(name=h.AI_CANCEL, client_id="alice", extras=h.make_extras({h.RUN_ID: "later"}))
    await stores.turns.cancels.cancel(NAME, CancelFilter(Scope.TURN, "later"), early)
    await stores.presence.leave(NAME, "c1")
    await stores.presence.lost(Holder("c1", "o-c1", "node-1"))
    await stores.presence.sweep()
    await stores.occupancy.report(NAME, "node-1", AttachmentCounts(1, 1, 1), ["alice"])

    assert mentions(client, redis_prefix, NAME) == []


async def test_an_erasure_that_was_interrupted_is_finished_by_the_next(
    stores: Stores, client: redis.Redis, redis_prefix: str
) -> None:
    for number in range(3 * PER_STEP):
        await stores.sessions.publish(NAME, [Message(name="n", data=f"{number}")])
    await fill(stores)

    class Killed(Exception):
        pass

    steps = 0

    class Dies(SessionErasure):
        async def step(self, session: str) -> int | None:
            nonlocal steps
            steps += 1
            if steps == 2:
                raise Killed
            return await super().step(session)

    with pytest.raises(Killed):
        await Dies(stores.redis, stores.keys, stores.turns, stores.push).erase(NAME, "olga")
    # Half of it is there; none can be read or written to.
    assert mentions(client, redis_prefix, NAME)
    assert (await stores.history.page(NAME, Query())).messages == []
    with pytest.raises(SessionErased):
        await stores.sessions.publish(NAME, [Message(name="n", data="again")])

    await stores.erasure.erase(NAME, "olga")

    assert mentions(client, redis_prefix, NAME) == []


async def test_what_an_interrupted_erasure_left_goes_also_once_the_name_is_used_again(
    stores: Stores, client: redis.Redis, redis_prefix: str
) -> None:
    await fill(stores)
    await stores.turns.cancels.cancel(
        NAME, CancelFilter(Scope.ALL), Message(name=h.AI_CANCEL), early=False, force=True
    )
    meta = f"{stores.keys.base_of(NAME)}s:{NAME}"
    await stores.redis.call(
        *scripts.call("erase_begin", meta=meta, base=stores.keys.base_of(NAME), session=NAME, kept_out_ms=1)
    )
    await wait_until(lambda: not mentions(client, redis_prefix, hashlib.sha1(NAME.encode()).hexdigest()), 5)
    await stores.sessions.publish(NAME, [Message(name="n", data="a new life")])

    await stores.erasure.erase(NAME, "olga")

    assert mentions(client, redis_prefix, NAME) == []


async def test_a_send_meanwhile_is_refused_or_erased(
    stores: Stores, client: redis.Redis, redis_prefix: str
) -> None:
    await fill(stores)
    done, outcomes = asyncio.Event(), list[object]()

    async def send(number: int) -> None:
        while not done.is_set():
            turn = request(f"t-{number}-{len(outcomes)}", session=NAME)
            try:
                outcomes.append(await stores.turns.submit(turn))
            except SessionErased as error:
                outcomes.append(error)

    sending = [asyncio.create_task(send(number)) for number in range(3)]
    await wait_until(lambda: len(outcomes) > 20, 10)
    await stores.erasure.erase(NAME, "olga")
    at_end = len(outcomes)
    await wait_until(lambda: len(outcomes) > at_end + 6, 10)
    done.set()
    await asyncio.gather(*sending)

    assert isinstance(outcomes[-1], SessionErased)
    assert mentions(client, redis_prefix, NAME) == []


async def test_the_name_can_be_freed(stores: Stores) -> None:
    await stores.sessions.publish(NAME, [Message(name="n", data="first")])
    await stores.erasure.erase(NAME, "olga", kept_out_ms=0)
    await stores.sessions.publish(NAME, [Message(name="n", data="second")])
    page = await stores.history.page(NAME, Query())
    assert [message.data for message in page.messages] == ["second"]


async def test_a_large_session_is_erased_in_short_steps(stores: Stores, client: redis.Redis) -> None:
    messages = [Message(name="n", data="x" * 100, extras={"ai": {"transport": {"event-id": "e"}}})] * 50
    for _ in range(40):
        await stores.sessions.publish(NAME, messages)

    async def erase() -> None:
        await stores.erasure.erase(NAME, "olga")

    assert await slow_scripts(stores.redis, erase) == []
