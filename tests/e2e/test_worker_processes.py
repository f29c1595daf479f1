"""Workers as real processes that are killed, frozen and stopped: every turn ends exactly once (P3, P6)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.store.entries import Appended
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.turns import headers as h
from tests.processes import Stack, wait_until
from tests.promptness import Stopwatch, prompt
from tests.worker.session import Room, header, numbered

# A worker that a busy machine keeps waiting for a second or two keeps its turns.
LEASE_MS = 3000
SHORT_LEASE = {f"{ENV_PREFIX}LEASE_MS": str(LEASE_MS)}
# Lease, two sweeps of the reaper, and a loaded machine.
TAKEN_OVER_S = 30.0


@pytest.fixture
async def room(stack: Stack) -> AsyncIterator[Room]:
    connection = RedisConnection(stack.redis_url)
    yield Room(connection, Keyspace(stack.redis_prefix))
    await connection.close()


async def streamed(room: Room, turn: str, characters: int) -> None:
    """Wait until so much of a turn's text is in the session."""

    async def long_enough() -> bool:
        return len(await room.text(turn)) >= characters

    await wait_until(long_enough, 10.0, f"{characters} characters of turn {turn}")


async def test_rec_7_dur_8_a_killed_worker_is_replaced(stack: Stack, room: Room) -> None:
    first = await stack.worker(env=SHORT_LEASE)
    turn = await room.send("script: tokens=100 rate=50")
    await streamed(room, turn, 50)
    first.kill()
    await stack.worker(env=SHORT_LEASE)
    record = await room.ended(turn, TAKEN_OVER_S)
    assert (record.status, record.attempts) == ("completed", 2)
    assert await room.terminals(turn) == ["complete"]
    assert await room.text(turn) == numbered(100)


async def test_dur_9_a_frozen_worker_cannot_write_after_take_over(stack: Stack, room: Room) -> None:
    frozen = await stack.worker(env=SHORT_LEASE)
    turn = await room.send("script: tokens=200 rate=100")
    await streamed(room, turn, 50)
    frozen.pause()
    await stack.worker(env=SHORT_LEASE)

    async def taken_over() -> bool:
        return (await room.record(turn)).attempts == 2

    await wait_until(taken_over, TAKEN_OVER_S)
    frozen.proceed()
    assert (await room.ended(turn, TAKEN_OVER_S)).status == "completed"
    assert await room.text(turn) == numbered(200)
    assert await tokens_of_superseded_attempts_after_take_over(room, turn) == 0


async def tokens_of_superseded_attempts_after_take_over(room: Room, turn: str) -> int:
    """Chunks of an attempt that stand behind the start of a later one."""
    history = await room.of_turn(turn)
    starts = sorted(message.serial or "" for message in history if message.name == h.AI_STEP_START)
    old = {
        (message.serial or "").split("@")[0]
        for message in history
        if message.name == h.AI_OUTPUT and header(message, h.STEP_START_SERIAL) == starts[0]
    }
    take_over = starts[1].split("@")[0]
    late = 0
    for entry in await room.log():
        if isinstance(entry, Appended) and entry.data:
            opened, here = (f"{at.ms:014d}-{at.counter:03d}" for at in (entry.ref.position, entry.position))
            late += opened in old and here > take_over
    return late


async def test_dur_11_a_poison_turn_stops(stack: Stack, room: Room) -> None:
    # Each crash takes a worker with it; those who run services would start it again.
    turn = await room.send("script: tokens=20 crash_at=5 always=1", max_attempts=2)
    for _ in range(2):
        worker = await stack.worker(env=SHORT_LEASE)
        assert await worker.wait(TAKEN_OVER_S) == -9
    healthy = await stack.worker(env=SHORT_LEASE)
    record = await room.ended(turn, TAKEN_OVER_S)
    assert (record.status, record.attempts) == ("failed", 2)
    assert await room.terminals(turn) == ["error"]
    dead = f"{room.turns.keys.base_of(room.name)}dead"
    (letter,) = await room.turns.redis.command("XRANGE", dead, "-", "+")
    assert turn.encode() in letter[1]
    fine = await room.send("script: tokens=5")
    assert (await room.ended(fine)).status == "completed" and healthy.returncode is None


async def test_a_crash_at_the_first_attempt_is_repeated(stack: Stack, room: Room) -> None:
    turn = await room.send("script: tokens=20 crash_at=5")
    crashed = await stack.worker(env=SHORT_LEASE)
    assert await crashed.wait(TAKEN_OVER_S) == -9
    await stack.worker(env=SHORT_LEASE)
    assert (await room.ended(turn, TAKEN_OVER_S)).status == "completed"
    assert await room.text(turn) == numbered(20)


@prompt
async def test_int_17_a_silent_turn_ends_at_once(stack: Stack, room: Room) -> None:
    await stack.worker("--concurrency", "1")
    turn = await room.send("script: tokens=20 hang_at=10")
    await streamed(room, turn, len(numbered(10)))
    watch = Stopwatch()
    cancelled = await room.cancel(turn)
    assert cancelled.matched == (turn,)
    assert (await room.record(turn)).status == "cancelled"
    watch.assert_below(1.0)
    # INT-3: the slot of a worker with only one is free at once.
    following = await room.send("script: tokens=3")
    assert (await room.ended(following, 2.0)).status == "completed"
    assert await room.content_after(turn, cancelled.position) == []


async def test_dur_12_a_stopped_worker_hands_its_turns_over(stack: Stack, room: Room) -> None:
    first = await stack.worker(env={f"{ENV_PREFIX}GRACE_MS": "100"})
    turn = await room.send("script: tokens=100 rate=50")
    await streamed(room, turn, 50)
    second = await stack.worker()
    first.terminate()
    assert await first.wait() == 0
    assert (await room.ended(turn)).status == "completed"
    assert await room.terminals(turn) == ["complete"]
    assert await room.text(turn) == numbered(100)
    assert second.returncode is None


async def test_a_worker_waits_for_what_ends_within_the_grace(stack: Stack, room: Room) -> None:
    worker = await stack.worker(env={f"{ENV_PREFIX}GRACE_MS": "5000"})
    turn = await room.send("script: tokens=50 rate=100")
    await streamed(room, turn, 20)
    worker.terminate()
    assert await worker.wait() == 0
    record = await room.record(turn)
    assert (record.status, record.attempts) == ("completed", 1)


async def test_a_worker_says_what_is_wrong_with_its_target(stack: Stack) -> None:
    with pytest.raises(AssertionError, match="not of the form MODULE:OBJECT"):
        await stack.worker("nonsense")
    with pytest.raises(AssertionError, match="No module named 'nonsense'"):
        await stack.worker("nonsense:worker")
    with pytest.raises(AssertionError, match="is not a Worker"):
        await stack.worker("agent_worker.scripted.model:scripted")
