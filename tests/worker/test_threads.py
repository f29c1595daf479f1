"""Plain functions in threads of the worker's own: hung ones neither use up the room of others nor the loop's own pool."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from agent_worker.user_code.threads import PulledIterable, Threads

SIZE = 2


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    made = Threads(SIZE)
    yield made
    made.close()


async def test_hung_calls_that_no_one_waits_for_make_room(threads: Threads) -> None:
    hung = threading.Event()
    calls = [asyncio.create_task(threads.run(hung.wait)) for _ in range(SIZE)]
    waiting = asyncio.create_task(threads.run(lambda: "quick"))
    await asyncio.sleep(0.05)
    assert not waiting.done()  # up to `size` at once
    for call in calls:
        call.cancel()
    assert await asyncio.wait_for(waiting, 5) == "quick"
    assert threads.left_behind == SIZE
    # The way to Redis needs names resolved, in the loop's own threads.
    loop = asyncio.get_running_loop()
    assert await asyncio.wait_for(loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM), 5)
    hung.set()
    while threads.left_behind:
        await asyncio.sleep(0.01)


async def test_no_more_threads_than_twice_the_size(threads: Threads) -> None:
    hung = threading.Event()
    for _ in range(3 * SIZE):
        call = asyncio.create_task(threads.run(hung.wait))
        await asyncio.sleep(0.02)
        call.cancel()
    waiting = asyncio.create_task(threads.run(lambda: "later"))
    await asyncio.sleep(0.05)
    assert threads.left_behind <= 2 * SIZE and not waiting.done()
    hung.set()
    assert await asyncio.wait_for(waiting, 5) == "later"


async def test_a_plain_iterable_is_read_a_little_ahead_and_no_further(threads: Threads) -> None:
    given: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100_000):
            given.append(number)
            yield number

    pulled = PulledIterable(numbers(), threads)
    assert [await anext(pulled) for _ in range(10)] == list(range(10))
    await asyncio.sleep(0.05)
    assert len(given) < 100
    await pulled.aclose()
    with pytest.raises(StopAsyncIteration):
        while True:
            await anext(pulled)


async def test_a_generator_is_closed_by_its_own_thread(threads: Threads) -> None:
    where: list[int] = []
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        where.append(threading.get_ident())
        try:
            while True:
                yield 1
        finally:
            where.append(threading.get_ident())
            closed.set()

    pulled = PulledIterable(numbers(), threads)
    await anext(pulled)
    await pulled.aclose()
    await asyncio.wait_for(asyncio.to_thread(closed.wait, 5), 6)
    assert len(set(where)) == 1 and where[0] != threading.get_ident()
