"""More turns than workers take: what is refused, what waits, and that a refusal leaves nothing behind (P13)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from selfhost_transport.errors import Overloaded, RateLimited
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.turn_store import Policy, TurnStore
from tests.store.turns import LEASE_MS, SESSION, request, take


def limited(turns: TurnStore, **options: Any) -> TurnStore:
    return TurnStore(turns.redis, turns.keys, StoreOptions(**options))


async def submit(turns: TurnStore, first: int, count: int) -> None:
    for number in range(first, first + count):
        await turns.submit(request(f"t{number}"))


async def run_at_a_pace(turns: TurnStore, count: int, each_s: float = 0.01) -> None:
    """Some turns wait, and are taken one by one: now the pace is known."""
    for number in range(count):
        await turns.submit(request(f"paced{number}"))
    for _ in range(count):
        await asyncio.sleep(each_s)
        assert await take(turns) is not None


async def test_without_a_worker_turns_wait_up_to_the_limit_and_then_are_refused(turns: TurnStore) -> None:
    store = limited(turns, max_waiting=20)
    await submit(store, 0, 20)
    with pytest.raises(Overloaded) as refused:
        await store.submit(request("more"))
    detail = refused.value.info.detail or {}
    assert (detail["reason"], detail["waiting"]) == ("queue_too_long", 20)
    assert refused.value.info.retry_after_ms == 1000
    assert refused.value.retryable
    assert refused.value.info.status_code == 503
    # Room again: the same send is accepted.
    assert await take(store) is not None
    await store.submit(request("more"))


async def test_what_would_wait_longer_than_the_workers_need_is_refused(turns: TurnStore) -> None:
    store = limited(turns, max_wait_ms=1, burst_wait_ms=60_000)
    await run_at_a_pace(store, 10)
    await submit(store, 0, 20)
    with pytest.raises(Overloaded) as refused:
        await store.submit(request("more"), may_burst=False)
    assert (refused.value.info.retry_after_ms or 0) >= 100
    # As part of a burst it waits; the answer says behind how many.
    accepted = await store.submit(request("more"))
    assert (accepted.burst, accepted.waiting, accepted.status) == (True, 20, "pending")
    # A burst is not without an end either.
    with pytest.raises(Overloaded):
        await limited(turns, max_wait_ms=1, burst_wait_ms=2).submit(request("even more"))


async def test_a_pace_that_suffices_refuses_nothing(turns: TurnStore) -> None:
    store = limited(turns, max_wait_ms=60_000)
    await run_at_a_pace(store, 10)
    for number in range(100):
        assert not (await store.submit(request(f"t{number}"), may_burst=False)).burst


async def test_many_sends_at_once_after_a_calm_time_all_wait(turns: TurnStore) -> None:
    """Few turns are taken where few are sent: that says nothing of how many could be."""
    for number in range(8):
        await turns.submit(request(f"calm{number}"))
        assert await take(turns) is not None
        await asyncio.sleep(0.2)
    for number in range(60):
        assert not (await turns.submit(request(f"t{number}"))).burst


async def test_a_pause_of_the_workers_is_soon_forgotten(turns: TurnStore) -> None:
    await run_at_a_pace(turns, 5)
    await submit(turns, 0, 60)
    await asyncio.sleep(1.2)
    for _ in range(45):
        assert await take(turns) is not None
    assert not (await turns.submit(request("more"))).burst


async def test_without_a_limit_any_number_waits(turns: TurnStore) -> None:
    store = limited(turns, max_wait_ms=0, max_waiting=0, max_open_turns=0)
    await run_at_a_pace(store, 10)
    await submit(store, 0, 1100)


async def test_few_turns_that_were_taken_say_nothing_of_the_pace(turns: TurnStore) -> None:
    """Long turns in a few places: more than a handful may wait for their end."""
    store = limited(turns, max_wait_ms=1)
    await run_at_a_pace(store, 3)
    for number in range(50):
        await store.submit(request(f"t{number}"), may_burst=False)


async def test_another_agents_queue_does_not_count(turns: TurnStore) -> None:
    store = limited(turns, max_waiting=10)
    await submit(store, 0, 10)
    await store.submit(request("other", agent="b"))


async def test_a_refused_send_leaves_nothing_behind(turns: TurnStore) -> None:
    store = limited(turns, max_waiting=10)
    await submit(store, 0, 10)
    bucket = bucket_of(SESSION, store.keys.buckets)
    other = next(name for name in map(str, range(1000)) if bucket_of(name, store.keys.buckets) == bucket)
    with pytest.raises(Overloaded):
        await store.submit(request("more", session=other))
    assert await store.redis.command("EXISTS", f"{store.keys.base(bucket)}s:{other}") == 0


async def test_a_session_has_a_limit_of_open_turns(turns: TurnStore) -> None:
    store = limited(turns, max_open_turns=5)
    await submit(store, 0, 5)
    with pytest.raises(RateLimited) as refused:
        await store.submit(request("more"))
    assert (refused.value.info.detail or {})["reason"] == "too_many_open_turns"
    # A repeat of one that is open is still the same send (P5).
    assert (await store.submit(request("t1"))).repeated
    # One that makes room for itself is accepted.
    accepted = await store.submit(request("more", policy=Policy.INTERRUPT))
    assert len(accepted.interrupted) == 5


async def test_the_pace_is_forgotten_after_a_while(turns: TurnStore) -> None:
    await run_at_a_pace(turns, 1)
    base = turns.keys.base_of(SESSION)
    assert 0 < await turns.redis.command("PTTL", f"{base}pace:a") <= 60_000
    assert await turns.take(bucket_of(SESSION, turns.keys.buckets), "a", "w1", LEASE_MS) is None
