"""Requests that come with a refused token again and again are slowed down, and end (AUT-11)."""

from __future__ import annotations

import asyncio

import pytest

from gateway.auth.failed_attempts import AT_ONCE, PATIENCE_S, FailedAttempts


class Day:
    """A clock that moves where someone waits."""

    def __init__(self) -> None:
        self.now = 100.0

    async def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def day() -> Day:
    return Day()


@pytest.fixture
def attempts(day: Day) -> FailedAttempts:
    return FailedAttempts(lambda: day.now, day.wait)


async def test_who_repeats_a_token_is_stopped_after_a_few_requests(
    attempts: FailedAttempts, day: Day
) -> None:
    began, requests = day.now, 1
    while await attempts.note("old"):
        requests += 1
        day.now += 0.01
    assert PATIENCE_S < day.now - began < 2 * PATIENCE_S and requests < 10
    assert not await attempts.note("old")
    assert await attempts.note("another")


async def test_many_at_once_are_all_asked_to_renew(attempts: FailedAttempts, day: Day) -> None:
    assert all([await attempts.note("old") for _ in range(AT_ONCE)])
    assert day.now == 100.0
    frozen = FailedAttempts(lambda: 100.0, lambda _: asyncio.sleep(0))
    assert all(await asyncio.gather(*(frozen.note("old") for _ in range(100))))


async def test_a_token_that_comes_again_later_is_refused_as_the_first_time(
    attempts: FailedAttempts, day: Day
) -> None:
    while await attempts.note("old"):
        day.now += 0.01
    day.now += 10
    assert await attempts.note("old")
