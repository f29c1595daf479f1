"""Which workers a new turn calls: few of those that wait, and others where these do not come."""

from __future__ import annotations

import asyncio
import os
import secrets
from typing import Final

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from selfhost_transport.redis_io.databases import Database
from selfhost_transport.store.turn_store import CancelFilter, Scope
from tests.processes import wait_until
from tests.store.turns import CANCEL
from tests.worker.callable_workers import Fleet, fleet

_LONG: Final = bool(os.environ.get("SELFHOST_TRANSPORT_LONG"))
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.lists(st.integers(0, 5), min_size=1, max_size=6)),
        st.tuples(st.just("end"), st.integers(0, 9)),
        st.tuples(st.just("join"), st.integers(1, 4)),
        st.tuples(st.just("drain"), st.integers(0, 9)),
        st.tuples(st.sampled_from(["freeze", "proceed", "kill", "settle"]), st.integers(0, 9)),
    ),
    min_size=3,
    max_size=14,
)


async def test_a_turn_calls_two_of_twelve_and_each_worker_in_turn(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=1) as one:
        for _ in range(12):
            await one.join()
        for number in range(12):
            await one.send(f"s{number}")
            await one.settled()
            await wait_until(lambda number=number: sum(w.calls for w in one.workers) == 2 * (number + 1))  # type: ignore[misc]
        assert max(len(worker.taken) for worker in one.workers) <= 3
        assert min(worker.calls for worker in one.workers) >= 1


async def test_a_worker_that_is_gone_is_passed_over(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=1) as one:
        for _ in range(5):
            await one.join()
        for worker in one.workers[:4]:
            await one.kill(worker)
        await one.send("s")
        await one.settled()
        assert one.workers[0].taken == ["t0"]


async def test_a_worker_without_room_calls_others(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=2) as one:
        first, second = await one.join(room=1), await one.join(room=1)
        third = await one.join(room=5)
        first.room = second.room = 0
        await one.send("s", "t", "u")
        await one.settled()
        assert len(third.taken) == 3


async def test_a_worker_that_drains_calls_others(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=1) as one:
        first, second = await one.join(), await one.join()
        await one.join()
        await first.drain()
        await second.drain()
        await one.send("s")
        await one.settled()
        assert one.workers[2].taken == ["t0"]


async def test_both_that_were_called_are_frozen(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=1) as one:
        first, second, third = await one.join(), await one.join(), await one.join()
        first.freeze()
        second.freeze()
        await one.send("s")
        await one.look_again()
        await one.settled()
        assert third.taken == ["t0"]
        first.proceed()
        second.proceed()
        await one.send("s2", "s3", "s4")
        await one.settled()


async def test_all_are_called_once_while_all_are_full(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=1) as one:
        for _ in range(4):
            await one.join(room=1)
        await one.send(*(f"s{number}" for number in range(4)))
        await one.settled()
        await one.send("first too many")
        calls = [worker.calls for worker in one.workers]
        await one.send(*(f"more {number}" for number in range(20)))
        # A turn of another agent would come after all of these.
        await asyncio.gather(*(worker._turns.call_again(0, "b") for worker in one.workers))
        assert sum(worker.calls for worker in one.workers) - sum(calls) <= len(one.workers)
        one.workers[2].end_turn()
        await one.settled()
        assert len(one.workers[2].taken) == 2


async def test_all_are_called_where_redis_lost_who_is_idle(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=1) as one:
        await one.send("before there is a worker")
        await one.join()
        await one.join()
        await one.settled()
        # As a fail-over may.
        await one.turns.redis.command("DEL", f"{redis_prefix}:{{b0}}:idle:a")
        await one.send("s")
        await one.settled(2.0)


async def test_a_worker_that_has_become_full_is_not_noted_as_idle(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=1) as one:
        worker = await one.join(room=1)
        await one.send("s")
        await wait_until(lambda: worker.room == 0)
        idle = f"{redis_prefix}:{{b0}}:idle:a"
        assert await one.turns.redis.command("EXISTS", idle) == 0
        worker.end_turn()
        await wait_until(lambda: one.turns.redis.command("EXISTS", idle))


async def test_a_cancel_wakes_the_worker_of_the_turn_alone(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=1) as one:
        for _ in range(4):
            await one.join()
        (turn,) = await one.send("s")
        await one.settled()
        await one.turns.cancels.cancel("s", CancelFilter(Scope.TURN, turn), CANCEL)
        (owner,) = [worker for worker in one.workers if worker.taken]
        await wait_until(lambda: owner.pushes == ["stop"])
        channels = await one.turns.redis.command(
            "PUBSUB", "NUMSUB", f"{redis_prefix}:{{b0}}:ctl:{owner.name}"
        )
        assert channels[1] == 1


async def test_all_are_called_where_redis_does_not_count_who_hears(redis_url: str, redis_prefix: str) -> None:
    async with fleet(redis_url, redis_prefix, buckets=1) as one:
        one.turns.redis.database = Database(0, counted=False)
        for _ in range(4):
            await one.join()
        await one.send("s")
        await wait_until(lambda: [worker.calls for worker in one.workers] == [1] * 4)
        await one.settled()


@settings(
    max_examples=2_000 if _LONG else 60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=_STEPS, rough=st.booleans())
def test_no_turn_waits_while_a_worker_has_room(
    redis_url: str, redis_prefix: str, steps: list[tuple[str, object]], rough: bool
) -> None:
    """`rough`: workers freeze and are killed, and the look of every second helps. Without that no call is ever lost."""
    prefix = f"{redis_prefix}-{secrets.token_hex(4)}"
    asyncio.run(_live(redis_url, prefix, steps, rough=rough))
    with redis.Redis.from_url(redis_url) as client:
        client.unlink(*client.keys(f"{prefix}:*"))


async def _live(url: str, prefix: str, steps: list[tuple[str, object]], *, rough: bool) -> None:
    async with fleet(url, prefix) as one:
        await one.join(room=2)
        await one.join(room=2)
        for word, value in steps:
            await _step(one, word, value, rough=rough)
        await _all_taken(one, rough=rough)


async def _step(one: Fleet, word: str, value: object, *, rough: bool) -> None:
    if isinstance(value, list):
        await one.send(*(f"s{number}" for number in value))
    elif word == "settle":
        await _all_taken(one, rough=rough)
    elif word == "join":
        assert isinstance(value, int)
        await one.join(room=value)
    elif one.workers:
        assert isinstance(value, int)
        worker = one.workers[value % len(one.workers)]
        if word == "end" and worker.taken and worker.room >= 0:
            worker.end_turn()
        elif word == "drain" and not worker.frozen and worker.room >= 0:
            await worker.drain()
        elif rough and word == "freeze":
            worker.freeze()
        elif rough and word == "proceed":
            worker.proceed()
        elif rough and word == "kill":
            await one.kill(worker)


async def _all_taken(one: Fleet, *, rough: bool) -> None:
    # A look calls two: all that are frozen are called before the last of so many.
    for _ in range(len(one.workers) if rough else 0):
        await one.look_again()
        await asyncio.sleep(0)
    try:
        await one.settled()
    except TimeoutError:
        pytest.fail("a turn waits, and a worker has room")
