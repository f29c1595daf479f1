"""What has ended costs a gateway nothing, and is still delivered right when it changes after all."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from gateway.fanout.open_messages import PLAIN_MESSAGES_KEPT
from selfhost_transport.store.entries import NO_OPERATION, MessageOperation, Ref, _appended_to
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.actions import MessageAction
from selfhost_transport.wire.channel import RewindCount
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position, format_position, parse_position
from tests.gateway.scene import SESSION, Reader, Scene
from tests.processes import wait_until

ROOT = Path(__file__).parent.parent.parent
MOST_BYTES_PER_TURN = 256
MOST_BYTES_OF_A_LONG_SESSION = 100_000


def extras(run: str, **transport: str) -> dict[str, Any]:
    return h.make_extras({"run-id": run, "codec-message-id": f"m-{run}", **transport}, {"kind": "text"})


async def one(scene: Scene, name: str, extras: dict[str, Any], data: str = "") -> Ref:
    published = await scene.store.publish(SESSION, [Message(name=name, data=data, extras=extras)])
    return Ref(published.position)


async def stream(scene: Scene, run: str) -> Ref:
    return await one(scene, h.AI_OUTPUT, extras(run, stream="true", status="streaming"))


async def close(scene: Scene, ref: Ref, run: str, status: str) -> None:
    closing = extras(run, stream="true", status=status)
    await scene.store.append(SESSION, ref, "", extras=closing)


async def turn(scene: Scene, run: str, status: str = "complete") -> Ref:
    await one(scene, h.AI_INPUT, extras(run), "question")
    await one(scene, h.AI_RUN_START, extras(run))
    ref = await stream(scene, run)
    await scene.append(ref, "a", "b")
    await close(scene, ref, run, status)
    await one(scene, h.AI_RUN_END, extras(run))
    return ref


async def seen_by(scene: Scene, *readers: Reader) -> None:
    end = (await one(scene, "end", {})).position
    await wait_until(lambda: all(newest(reader) == end for reader in readers))


def newest(reader: Reader) -> Position:
    return parse_position(reader.messages[-1]["serial"])[0] if reader.messages else Position.ZERO


@pytest.mark.parametrize("status", ["complete", "cancelled"])
async def test_of_turns_that_have_ended_nothing_is_kept(scene: Scene, status: str) -> None:
    reader = await scene.join()
    for number in range(5):
        await turn(scene, str(number), status)
    opened = await stream(scene, "open")
    await scene.append(opened, "x")
    await wait_until(lambda: reader.messages[-1:] and reader.messages[-1]["data"] == "x")
    assert scene.feed.growing == 1
    await scene.store.replace(
        SESSION,
        opened,
        MessageAction.UPDATE,
        Message(data="whole", extras=extras("open", stream="true", status="complete")),
        NO_OPERATION,
    )
    await wait_until(lambda: reader.messages[-1]["data"] == "whole")
    assert scene.feed.growing == 0


def forget_shared() -> None:
    """What the whole process keeps, which is bounded."""
    _appended_to.cache_clear()
    format_position.cache_clear()


def kept_by_us() -> int:
    """Bytes that our own lines have made and that are there: a module that is imported meanwhile is not of the session."""
    ours = [tracemalloc.Filter(True, f"{ROOT}/{package}/*") for package in ("gateway", "selfhost_transport")]
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ours).traces)


async def test_ended_turns_do_not_add_to_the_memory_of_a_watched_session(scene: Scene) -> None:
    reader = await scene.join(rewind=RewindCount(10))
    reader.subscription.write = lambda frame: None

    async def traced(first: int, count: int) -> int:
        for number in range(first, first + count):
            await turn(scene, str(number))
        position = (await scene.store.open(SESSION)).position
        await scene.feed.until_fanned_out(position)
        scene.feed.forget_idle()
        forget_shared()
        gc.collect()
        return kept_by_us()

    tracemalloc.start()
    try:
        before = await traced(0, 60)
        after = await traced(60, 200)
    finally:
        tracemalloc.stop()
    assert (after - before) / 200 < MOST_BYTES_PER_TURN


async def test_a_session_of_a_thousand_turns_with_one_reader_is_small(scene: Scene) -> None:
    # What a process has once: another session is watched already.
    await scene.hub.join("other", Reader().subscription)
    await turn(scene, "first")
    gc.collect()
    tracemalloc.start()
    try:
        reader = await scene.join()
        reader.subscription.write = lambda frame: None
        for first in range(0, 1000, 50):
            await asyncio.gather(*(turn(scene, str(number)) for number in range(first, first + 50)))
        await scene.feed.until_fanned_out((await scene.store.open(SESSION)).position)
        forget_shared()
        gc.collect()
        assert kept_by_us() < MOST_BYTES_OF_A_LONG_SESSION
    finally:
        tracemalloc.stop()


async def test_of_an_applications_own_messages_the_newest_are_kept_for_a_while(scene: Scene) -> None:
    reader = await scene.join()
    refs = [await scene.create(str(number)) for number in range(PLAIN_MESSAGES_KEPT + 5)]
    await wait_until(lambda: len(reader.frames) == len(refs))
    assert scene.feed.growing == PLAIN_MESSAGES_KEPT
    await scene.append(refs[-1], "+")
    await wait_until(lambda: reader.messages[-1]["action"] == 5)
    scene.feed.forget_idle()
    await scene.append(refs[-1], "+")
    await wait_until(lambda: reader.messages[-1]["data"] == "+" and len(reader.frames) == len(refs) + 2)
    scene.feed.forget_idle()
    assert scene.feed.growing == 1
    scene.feed.forget_idle()
    assert scene.feed.growing == 0


async def test_what_was_forgotten_and_grows_again_is_delivered_whole_once(scene: Scene) -> None:
    reader = await scene.join()
    first = await scene.create("a")
    await seen_by(scene, reader)
    scene.feed.forget_idle()
    scene.feed.forget_idle()
    await scene.append(first, "b", "c", "d")
    await seen_by(scene, reader)
    reported = [(message["action"], message["data"]) for message in reader.messages if message["name"] == "n"]
    assert reported[0] == (0, "a")
    assert reported[1][0] == 1 and reported[1][1].startswith("ab")
    assert all(action == 5 for action, _ in reported[2:])
    late = await scene.join()
    await scene.append(first, "e")
    await seen_by(scene, reader, late)
    assert [m["data"] for m in late.messages if m["name"] == "n"] == ["abcde"]


async def test_the_states_an_attachment_was_given_are_forgotten_once_their_messages_ended(
    scene: Scene,
) -> None:
    refs = [await stream(scene, str(number)) for number in range(5)]
    late = await scene.join()
    for number, ref in enumerate(refs):
        await scene.append(ref, "a")
        if number:
            await close(scene, ref, str(number), "complete")
    await seen_by(scene, late)
    assert len(late.subscription.seen) == 5
    scene.feed.forget_idle()
    assert set(late.subscription.seen) == {refs[0]}
    await scene.append(refs[0], "b")
    await scene.store.replace(
        SESSION, refs[1], MessageAction.UPDATE, Message(data="edited"), MessageOperation(client_id="x")
    )
    await seen_by(scene, late)
    reported = [(m["action"], m["data"]) for m in late.messages[-3:-1]]
    assert reported == [(5, "b"), (1, "edited")]
