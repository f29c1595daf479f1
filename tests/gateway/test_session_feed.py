"""A feed on real Redis: order, gaps, late joiners, slow readers (P1, P7, P10)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.background import Background
from gateway.fanout.backlog import CONFLATE_ABOVE, Backlogs
from gateway.fanout.log_follower import LogFollower
from gateway.fanout.subscription import DeliveryState
from selfhost_transport.errors import LogRewound
from selfhost_transport.store.entries import Entry
from selfhost_transport.wire.channel import RewindCount
from selfhost_transport.wire.serial import Position, parse_position
from tests.gateway.scene import SESSION, Lossy, Reader, Scene
from tests.processes import wait_until


async def test_everyone_gets_the_same_frames(scene: Scene) -> None:
    readers = [await scene.join() for _ in range(3)]
    ref = await scene.create("a")
    await scene.append(ref, "b", "c")
    await wait_until(lambda: all(len(reader.frames) == 3 for reader in readers))
    assert readers[0].frames == readers[1].frames == readers[2].frames
    assert [message["action"] for message in readers[0].messages] == [0, 5, 5]


async def test_joining_at_any_moment_gives_the_whole_text(scene: Scene) -> None:
    ref = await scene.create("")
    readers: list[Reader] = []
    chunks = [f"{number} " for number in range(60)]
    for number, chunk in enumerate(chunks):
        if number % 10 == 3:
            readers.append(await scene.join())
        await scene.append(ref, chunk)
    expected = "".join(chunks)
    await wait_until(lambda: all(reader.text == expected for reader in readers))
    for reader in readers:
        assert reader.messages[0]["action"] == 1
        assert {message["action"] for message in reader.messages[1:]} <= {5}
        versions = [message["version"]["serial"] for message in reader.messages]
        assert versions == sorted(set(versions))


async def test_an_attachment_begins_behind_what_was_acknowledged_before_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    notify = LogFollower.notify
    slowly = lambda feed, payload: asyncio.get_running_loop().call_later(0.05, notify, feed, payload)  # noqa: E731
    monkeypatch.setattr(LogFollower, "notify", slowly)
    # The session is followed already, and its notifications are behind.
    first = await scene.join()
    await scene.create("before")
    second, rewound = await scene.join(), await scene.join(rewind=RewindCount(1))
    await scene.create("after")
    await wait_until(lambda: len(first.frames) == 2 and len(second.frames) >= 1 and len(rewound.frames) >= 2)
    assert [message["data"] for message in second.messages] == ["after"]
    assert [message["data"] for message in rewound.messages] == ["before", "after"]


async def test_a_gap_in_the_notifications_is_filled_from_the_log(scene: Scene, redis_url: str) -> None:
    async with Lossy(scene, redis_url) as lossy:
        reader = lossy.reader
        await scene.create("first")
        await wait_until(lambda: len(reader.frames) == 1)
        lossy.losing = True
        for text in ("second", "third"):
            await scene.create(text)
        await wait_until(lambda: len(lossy.lost) == 2)
        lossy.losing = False
        await scene.create("fourth")
        await wait_until(lambda: len(reader.frames) == 4)
        assert [message["data"] for message in reader.messages] == ["first", "second", "third", "fourth"]
        assert lossy.follower.feed.position == parse_position(reader.frames[-1]["channelSerial"])[0]
        assert reader.gaps == []


async def test_a_log_that_was_trimmed_away_is_reported_as_a_gap(scene: Scene, redis_url: str) -> None:
    async with Lossy(scene, redis_url) as lossy:
        reader = lossy.reader
        await scene.create("first")
        await wait_until(lambda: len(reader.frames) == 1)
        lossy.losing = True
        for _ in range(3):
            await scene.create("lost")
        await wait_until(lambda: len(lossy.lost) == 3)
        lossy.losing = False
        await scene.store.redis.command("DEL", f"{scene.store.keys.base_of(SESSION)}l:{SESSION}")
        lossy.follower.compare()
        await wait_until(lambda: reader.gaps)
        assert reader.gaps[0].error.code == 90003
        await scene.create("next")
        await wait_until(lambda: len(reader.frames) == 2)
        assert reader.messages[-1]["data"] == "next"


async def test_a_redis_that_went_back_is_reported_as_a_gap(scene: Scene) -> None:
    reader = await scene.join()
    await scene.create("kept")
    redis, base = scene.store.redis, scene.store.keys.base_of(SESSION)
    keys = [f"{base}{kind}:{SESSION}" for kind in ("l", "p", "h")]
    before = [await redis.command("DUMP", key) for key in keys]
    lost = await scene.create("lost")
    # A millisecond that has passed, for positions are times.
    await wait_until(lambda: len(reader.frames) == 2 and time.time() * 1000 >= lost.position.ms + 1)
    for key, value in zip(keys, before, strict=True):
        await redis.command("RESTORE", key, 0, value, "REPLACE")
    # Its position is beyond that of the lost one: only the log shows that something is missing.
    await scene.create("next")
    await wait_until(lambda: reader.gaps)
    assert LogRewound.matches(reader.gaps[0].error)
    await scene.create("after")
    await wait_until(lambda: len(reader.frames) == 3)
    assert [message["data"] for message in reader.messages] == ["kept", "lost", "after"]


async def test_those_who_resume_together_share_one_reading(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await scene.join()
    ref = await scene.create("a")
    await wait_until(lambda: first.frames)
    position = first.frames[0]["channelSerial"]
    for number in range(100):
        await scene.append(ref, f" {number}")
    await scene.create("other")
    await wait_until(lambda: len(first.frames) == 102)
    readings = 0
    read_after = scene.store.read_after

    async def counted(*arguments: Any, **options: Any) -> list[Entry]:
        nonlocal readings
        readings += 1
        return await read_after(*arguments, **options)

    monkeypatch.setattr(scene.store, "read_after", counted)
    again = await asyncio.gather(*(scene.join(position) for _ in range(20)))
    await wait_until(lambda: all(len(reader.messages) == 2 for reader in again))
    assert readings == 1
    await scene.append(ref, " end")
    whole = "a" + "".join(f" {number}" for number in range(100))
    await wait_until(lambda: all(len(reader.messages) == 3 for reader in again))
    for reader in again:
        assert [message["data"] for message in reader.messages] == [whole, "other", " end"]


async def test_a_redis_that_went_back_by_a_slow_clock_is_noticed(scene: Scene) -> None:
    """A new primary whose clock is behind gives positions that are older than those seen of the old one."""
    reader = await scene.join()
    kept = await scene.create("kept")
    await wait_until(lambda: reader.frames)
    await asyncio.sleep(0.005)  # so that there is a position between the two
    redis, keys = scene.store.redis, scene.store.keys
    log, head = (f"{keys.base_of(SESSION)}{kind}:{SESSION}" for kind in "lp")
    before = [await redis.command("DUMP", key) for key in (log, head)]
    await scene.create("lost")
    await wait_until(lambda: len(reader.frames) == 2)
    [(_, (_, entry))] = await redis.command("XREVRANGE", log, "+", "-", "COUNT", 1)
    for key, value in zip((log, head), before, strict=True):
        await redis.command("RESTORE", key, 0, value, "REPLACE")
    old = kept.position.stream_id
    new = Position(kept.position.ms + 1, 0).stream_id
    await redis.command("XADD", log, new, "e", entry)
    await redis.command("SET", head, new)
    await redis.command("PUBLISH", keys.channel(SESSION), f"{new} {old} ".encode() + entry)
    await wait_until(lambda: reader.gaps)
    assert LogRewound.matches(reader.gaps[0].error)


async def test_resuming_gets_what_was_missed_and_nothing_twice(scene: Scene) -> None:
    reader = await scene.join()
    ref = await scene.create("a")
    await wait_until(lambda: reader.frames)
    position = reader.frames[0]["channelSerial"]
    await scene.append(ref, "b")
    await scene.create("other")
    again = await scene.join(position)
    await wait_until(lambda: len(again.frames) == 2)
    assert [(message["action"], message["data"]) for message in again.messages] == [(1, "ab"), (0, "other")]
    await scene.append(ref, "c")
    await wait_until(lambda: len(again.frames) == 3)
    assert again.messages[2]["data"] == "c"


async def test_a_slow_reader_is_caught_up_with_current_states(scene: Scene) -> None:
    slow, quick = await scene.join(), await scene.join()
    ref = await scene.create("")
    await wait_until(lambda: slow.frames)
    slow.congested = True
    chunks = [f"{number} " for number in range(3 * CONFLATE_ABOVE)]
    await scene.append(ref, *chunks)
    await wait_until(lambda: quick.text == "".join(chunks))
    assert slow.subscription.state is DeliveryState.STALE
    written = len(slow.frames)
    slow.congested = False
    slow.subscription.drained()
    await wait_until(lambda: slow.text == "".join(chunks))
    assert len(slow.frames) <= written + 2
    assert slow.gaps == []
    await scene.append(ref, "end")
    await wait_until(lambda: slow.messages[-1]["data"] == "end")


async def test_waiting_for_a_position_that_has_passed_and_for_one_to_come(scene: Scene) -> None:
    await scene.join()
    first = (await scene.create("a")).position
    await scene.feed.until_fanned_out(first)
    tasks = Background("test")
    waiting = tasks.start(scene.feed.until_fanned_out(Position(first.ms + 1, 0)))
    await wait_until(lambda: scene.feed.position >= first)
    assert not waiting.done()
    await wait_until(lambda: _later(scene, waiting))


async def _later(scene: Scene, waiting: asyncio.Task[None]) -> bool:
    await scene.create("b")
    return waiting.done()


async def test_a_session_without_an_entry_is_not_forgotten_while_it_is_watched(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fanout.hub.FORGET_IDLE_S", 0.02)
    reader = await scene.join()
    key = f"{scene.store.keys.base_of(SESSION)}s:{SESSION}"
    await scene.store.redis.command("PEXPIRE", key, 5_000)

    async def renewed() -> bool:
        return bool(await scene.store.redis.command("PTTL", key) > 100_000)

    await wait_until(renewed)
    await scene.create("first")
    await wait_until(lambda: [message["data"] for message in reader.messages] == ["first"])
    assert await scene.store.redis.command("PTTL", key) == -1


async def test_a_session_no_one_watches_is_forgotten(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.fanout.hub.LINGER_S", 0.01)
    reader = await scene.join()
    scene.hub.leave(scene.feed, reader.subscription)
    await wait_until(lambda: scene.hub.sessions == 0)
    assert reader.subscription.state is DeliveryState.DETACHED
    again = await scene.join()
    await scene.create("x")
    await wait_until(lambda: again.frames)


async def test_what_is_kept_back_for_an_answer_is_not_read_from_the_log_again_and_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.fanout.subscription.MAX_HELD", 8)
    reads = 0
    read_backlog = Backlogs.read

    async def counted(backlogs: Backlogs, epoch: str, after: Position, until: Position) -> Any:
        nonlocal reads
        reads += 1
        return await read_backlog(backlogs, epoch, after, until)

    monkeypatch.setattr(Backlogs, "read", counted)
    other, reader = await scene.join(), await scene.join()
    reader.subscription.pause()
    for number in range(60):
        await scene.create(str(number))
    await wait_until(lambda: len(other.frames) == 60)
    assert reader.frames == [] and reads == 0
    # Of two answers the first leaves: what was before it follows.
    reader.subscription.pause()
    reader.subscription.clear(parse_position(other.frames[19]["channelSerial"])[0])
    reader.subscription.proceed()
    await wait_until(lambda: len(reader.frames) == 20)
    reader.subscription.proceed()
    await wait_until(lambda: len(reader.frames) == 60)
    assert [message["data"] for message in reader.messages] == [str(number) for number in range(60)]
    assert reads <= 3
