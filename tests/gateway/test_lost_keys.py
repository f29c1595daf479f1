"""What Redis announced or had and has no more: no one waits without a word, and no one asks without a pause (P7)."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from gateway.auth.authenticator import now_ms
from gateway.auth.revocations import Revocations
from gateway.fanout.log_follower import LOOKS, LogFollower
from selfhost_transport.errors import StoreUnavailable, StoreUnsuitable
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.revocations import KEPT_MS, Revocation, RevocationStore, TargetKind
from tests.gateway.scene import SESSION, Reader, Scene
from tests.processes import wait_until


def count_looks(follower: LogFollower, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the log was read."""
    looks: list[float] = []
    read = follower._read_missing

    async def counted() -> None:
        looks.append(asyncio.get_running_loop().time())
        await read()

    monkeypatch.setattr(LogFollower, "_read_missing", lambda _: counted())
    return looks


FOREIGN = b"9999999999999-0 9999999999998-0 not of this log"


async def test_p7_an_announcement_that_is_in_no_log_is_looked_for_a_few_times_only(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await scene.join()
    looks = count_looks(scene.follower, monkeypatch)
    await scene.store.redis.command("PUBLISH", scene.store.keys.channel(SESSION), FOREIGN)
    await wait_until(lambda: len(looks) > LOOKS)
    # Once more without it; then no more.
    await scene.create("after")
    await wait_until(lambda: bool(reader.messages))
    assert [message["data"] for message in reader.messages] == ["after"]
    before = len(looks)
    await scene.create("live")
    await wait_until(lambda: len(reader.messages) == 2)
    assert len(looks) == before <= LOOKS + 2
    pauses = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert min(pauses[: LOOKS - 1]) > 0.04 and reader.gaps == []


async def test_what_is_written_meanwhile_is_delivered_in_spite_of_foreign_announcements(scene: Scene) -> None:
    reader = await scene.join()
    channel = scene.store.keys.channel(SESSION)
    for number in range(20):
        await scene.store.redis.command("PUBLISH", channel, FOREIGN.replace(b"-0 9", b"-%d 9" % number))
        await scene.create(str(number))
    await wait_until(lambda: len(reader.messages) == 20)
    assert [message["data"] for message in reader.messages] == [str(number) for number in range(20)]


async def test_a_session_that_no_one_watches_any_more_is_not_looked_for(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fanout.hub.LINGER_S", 0.05)
    monkeypatch.setattr("gateway.fanout.log_follower.LOOKS", 1000)
    reader = await scene.join()
    follower = scene.follower
    await scene.store.redis.command("PUBLISH", scene.store.keys.channel(SESSION), FOREIGN)
    await wait_until(lambda: follower.reads)
    scene.hub.leave(follower.feed, reader.subscription)
    await wait_until(lambda: follower.closed)
    # The loop has ended: nothing of it is left to be waited for.
    await asyncio.wait_for(scene.hub._background.finish(), 5)


async def test_a_feed_is_not_deaf_after_redis_failed_while_continuity_was_lost(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = await scene.join()
    await scene.create("one")
    await wait_until(lambda: bool(reader.messages))
    opened, failed = scene.store.open, 0

    async def failing(session: str) -> object:
        nonlocal failed
        failed += 1
        if failed == 2:  # the first is that of the reading
            raise StoreUnavailable("away")
        return await opened(session)

    await scene.store.redis.command("DEL", *await keys_of(scene))
    monkeypatch.setattr(scene.store, "open", failing)
    scene.follower.compare()
    await wait_until(lambda: len(reader.gaps) == 1)
    await scene.create("two")
    await wait_until(lambda: reader.messages[-1]["data"] == "two")


async def keys_of(scene: Scene) -> list[bytes]:
    base = scene.store.keys.base_of(SESSION)
    return [f"{base}{letter}:{SESSION}".encode() for letter in "splhg"]


async def test_p7_keys_that_vanish_under_a_live_connection_are_reported(scene: Scene) -> None:
    watched, unused = await scene.join(), Reader()
    await scene.hub.join("unused", unused.subscription)
    await scene.create("one")
    await wait_until(lambda: bool(watched.messages))
    for _ in range(3):
        assert await scene.hub.look_at_quiet(10) == 0
    await scene.store.redis.command("DEL", *await keys_of(scene))
    assert await scene.hub.look_at_quiet(10) == 1
    await wait_until(lambda: len(watched.gaps) == 1)
    await scene.create("two")
    await wait_until(lambda: watched.messages[-1]["data"] == "two")
    assert unused.gaps == [] and await scene.hub.look_at_quiet(10) == 0


async def test_many_sessions_are_looked_at_in_turn(scene: Scene) -> None:
    readers = {f"s{number}": Reader() for number in range(5)}
    for name, reader in readers.items():
        await scene.hub.join(name, reader.subscription)
    for name in readers:
        await scene.store.redis.command(
            "SET", f"{scene.store.keys.base_of(name)}p:{name}", "1-0", "PX", 60_000
        )
    # Each is asked first whether anything comes, and compared the second time; two at once.
    found = [await scene.hub.look_at_quiet(2) for _ in range(6)]
    assert sum(found) == 5 and max(found) == 2


async def test_revocations_that_redis_lost_are_put_back(redis_url: str, redis_prefix: str) -> None:
    redis = RedisConnection(redis_url)
    store = RevocationStore(redis, redis_prefix)
    known = Revocations(store, redis_url)
    now = now_ms()
    lasting = Revocation("a.k", TargetKind.CLIENT_ID, "u", now, now)
    useless = Revocation("a.k", TargetKind.CLIENT_ID, "old", now - KEPT_MS - 1, now - KEPT_MS - 1)
    await store.add([lasting, useless])
    await known.start()
    await redis.command("DEL", f"{redis_prefix}:revoked")
    known.reload()
    await wait_until(lambda: known._loading is not None and known._loading.done())
    assert await store.all() == [lasting]
    await known.close()
    await redis.close()


async def test_an_attach_to_a_session_that_is_damaged_says_so(scene: Scene) -> None:
    head = f"{scene.store.keys.base_of('damaged')}p:damaged"
    await scene.store.redis.command("RPUSH", head, "foreign")
    async with asyncio.timeout(5):
        with pytest.raises(StoreUnsuitable):
            await scene.hub.join("damaged", Reader().subscription)
    await scene.store.redis.command("DEL", head)
    await scene.hub.join("damaged", Reader().subscription)
