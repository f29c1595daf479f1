"""Notifications faster than they can be fanned out: read all the same, bounded, conflated, and nothing is lost (P13)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial

import pytest
import redis as blocking_redis

from gateway.fanout.inbox import Inbox
from gateway.websocket.write_batch import WriteBatch
from selfhost_transport.redis_io.subscriber import Subscriber
from tests.gateway.scene import Lossy, Scene
from tests.processes import wait_until


class Slow:
    """A reader that takes its time; `jumps` counts how often it was sent to the log."""

    def __init__(self, each_s: float = 0.0) -> None:
        self.each_s = each_s
        self.waits = False
        self.taken: list[bytes] = []
        self.jumps = 0

    def notify(self, payload: bytes) -> None:
        time.sleep(self.each_s)  # the work itself
        self.taken.append(payload)

    def jump(self) -> None:
        self.jumps += 1


async def drained(inbox: Inbox) -> None:
    await wait_until(lambda: not inbox.size)


async def test_what_comes_alone_is_handed_on_at_once() -> None:
    inbox, reader = Inbox(WriteBatch()), Slow()
    inbox.add(reader, b"1")
    assert reader.taken == [b"1"]


async def test_much_work_is_cut_into_slices_and_the_order_is_kept() -> None:
    inbox, reader = Inbox(WriteBatch()), Slow(0.001)
    expected = [b"%d" % number for number in range(60)]
    with inbox:
        for payload in expected:
            inbox.add(reader, payload)
    # One slice is done; the loop reads and writes before the next.
    assert 0 < len(reader.taken) < 60
    assert inbox.behind_s > 0 or inbox.size
    inbox.add(reader, b"last")
    await drained(inbox)
    assert reader.taken == [*expected, b"last"]
    assert inbox.behind_s == 0


async def test_a_busy_session_does_not_keep_the_others_waiting() -> None:
    inbox, busy, quiet = Inbox(WriteBatch()), Slow(0.002), Slow()
    busy.taken = quiet.taken
    with inbox:
        for _ in range(100):
            inbox.add(busy, b"x")
        inbox.add(quiet, b"y")
    await drained(inbox)
    assert quiet.taken.index(b"y") < 20


async def test_a_session_with_more_than_its_share_is_sent_to_the_log() -> None:
    inbox, busy, quiet = Inbox(WriteBatch(), max_of_one=1000), Slow(), Slow()
    with inbox:
        inbox.add(quiet, b"y")
        for _ in range(150):
            inbox.add(busy, b"x" * 10)
        assert inbox.size <= 1001
    await drained(inbox)
    assert (busy.jumps, quiet.jumps) == (1, 0)
    assert (len(busy.taken), quiet.taken) == (49, [b"y"])


async def test_all_together_are_bounded_too() -> None:
    inbox = Inbox(WriteBatch(), max_bytes=1000)
    readers = [Slow() for _ in range(50)]
    with inbox:
        for _ in range(10):
            for reader in readers:
                inbox.add(reader, b"x" * 10)
        assert inbox.size <= 1000
    assert sum(reader.jumps for reader in readers) > 0


@pytest.fixture
async def narrow(redis_url: str) -> AsyncIterator[blocking_redis.Redis]:
    """A Redis that drops subscribers who leave more than 12 MB unread."""
    client = blocking_redis.Redis.from_url(redis_url)
    limits = str(client.config_get("client-output-buffer-limit")["client-output-buffer-limit"])
    client.config_set("client-output-buffer-limit", "pubsub 12582912 12582912 60")
    yield client
    client.config_set("client-output-buffer-limit", limits)
    client.close()


async def test_redis_never_drops_a_subscriber_whose_work_is_slow(
    narrow: blocking_redis.Redis, redis_url: str, redis_prefix: str
) -> None:
    """40 MB come in two seconds, for readers that would need ten: one connection, and it stays."""
    lost: list[str] = []
    inbox = Inbox(WriteBatch())
    readers = [Slow(0.001) for _ in range(20)]
    subscriber = Subscriber(redis_url, on_reconnect=lambda: lost.append("reconnected"), batch=inbox)
    names = [f"{redis_prefix}:{number}" for number in range(20)]
    for name, reader in zip(names, readers, strict=True):
        await subscriber.subscribe(name, partial(inbox.add, reader))
    await asyncio.to_thread(_flood, narrow, names)
    await drained(inbox)
    connected = subscriber.connected
    await subscriber.close()
    assert connected
    assert not lost
    assert all(reader.taken[-1:] == [b"end"] or reader.jumps for reader in readers)


def _flood(client: blocking_redis.Redis, names: list[str]) -> None:
    for _ in range(20):
        with client.pipeline(transaction=False) as pipeline:
            for name in names * 25:
                pipeline.publish(name, b"x" * 4096)
            pipeline.execute()
        time.sleep(0.1)  # the rate
    for name in names:
        client.publish(name, b"end")


async def test_after_a_jump_every_reader_has_the_whole_text_in_order(scene: Scene) -> None:
    """Live readers, one that joins meanwhile, and more to come: all see the same, conflated."""
    readers = [await scene.join() for _ in range(3)]
    old = await scene.create("")
    await scene.append(old, "0 ", "1 ")
    await wait_until(lambda: all(reader.text == "0 1 " for reader in readers))
    expected = "0 1 "
    for round_ in range(4):
        for number in range(40):
            await scene.append(old, f"{round_}-{number} ")
            expected += f"{round_}-{number} "
            if number == 20:
                # As the inbox does once a session has more than its share; what is on its way is dropped with it.
                scene.hub.inbox.forget(scene.follower)
                scene.follower.jump()
        readers.append(await scene.join())
    await scene.append(old, "end")
    expected += "end"
    await wait_until(lambda: all(reader.text == expected for reader in readers))
    for reader in readers:
        assert not reader.gaps
        serials = [frame["channelSerial"] for frame in reader.frames]
        assert serials == sorted(serials)


async def test_a_jump_shows_messages_that_were_made_meanwhile(scene: Scene, redis_url: str) -> None:
    async with Lossy(scene, redis_url) as lossy:
        await scene.create("first")
        await wait_until(lambda: len(lossy.reader.frames) == 1)
        lossy.losing = True
        for number in range(5):
            await scene.create(f"missed {number}")
        await wait_until(lambda: len(lossy.lost) == 5)
        lossy.losing = False
        lossy.follower.jump()
        await wait_until(lambda: len(lossy.reader.messages) == 6)
        await scene.create("last")
        await wait_until(lambda: len(lossy.reader.messages) == 7)
        shown = [message["data"] for message in lossy.reader.messages]
        assert shown == ["first", *(f"missed {number}" for number in range(5)), "last"]


async def test_what_is_dropped_while_the_log_is_read_is_read_again(scene: Scene, redis_url: str) -> None:
    async with Lossy(scene, redis_url) as lossy:
        lossy.follower.compare()
        await scene.create("first")
        lossy.follower.jump()
        await scene.create("second")
        await wait_until(
            lambda: [message["data"] for message in lossy.reader.messages] == ["first", "second"]
        )


async def test_a_full_reader_is_caught_up_after_a_jump_once_it_has_room(scene: Scene) -> None:
    reader = await scene.join()
    reader.congested = True
    ref = await scene.create("a")
    await scene.append(ref, "b", "c")
    scene.follower.jump()
    await scene.append(ref, "d")
    await scene.feed.until_fanned_out((await scene.create("last")).position)
    reader.congested = False
    reader.subscription.drained()
    await wait_until(lambda: reader.messages[-1:] != [] and reader.messages[-1]["data"] == "last")
    assert any(message["data"] == "abcd" for message in reader.messages) or reader.text.startswith("abcd")
