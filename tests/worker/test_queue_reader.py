"""The queue_reader against queues that are only counted: how many takes are tried at once."""

from __future__ import annotations

import asyncio
from collections import Counter

from agent_worker.runtime.queue_reader import Pair, QueueReader
from selfhost_transport.errors import StoreUnavailable


class Queues:
    """Takes answer in their order, a round trip later; `at_once`: how many were under way together."""

    def __init__(self, waiting: dict[Pair, int], room: int = 1000) -> None:
        self.waiting = Counter(waiting)
        self.room = room
        self.taken = self.under_way = self.refused = 0
        self.at_once: list[int] = []
        self.empty = asyncio.Event()
        self.queue_reader = QueueReader(list(waiting), self.take, lambda: self.room, self.empty.set)

    async def take(self, bucket: int, agent: str, spare: bool) -> bool:
        self.under_way += 1
        await asyncio.sleep(0)
        if self.under_way:
            self.at_once.append(self.under_way)
            self.under_way = 0
        if self.refused:
            self.refused -= 1
            raise StoreUnavailable("away")
        if not self.waiting[bucket, agent]:
            return False
        self.waiting[bucket, agent] -= 1
        self.taken += 1
        self.room -= 1
        return self.waiting[bucket, agent] > 0

    async def run(self) -> None:
        work = asyncio.create_task(self.queue_reader.work())
        async with asyncio.timeout(10):
            await self.empty.wait()
        self.queue_reader.stop()
        await work


async def test_a_backlog_is_taken_with_twice_as_many_takes_each_time() -> None:
    queues = Queues({(0, "a"): 100})
    await queues.run()
    assert queues.taken == 100
    assert queues.at_once[:5] == [1, 2, 4, 8, 16]
    assert max(queues.at_once) == 16


async def test_a_queue_with_one_turn_is_tried_once() -> None:
    queues = Queues({(0, "a"): 1, (1, "a"): 0})
    await queues.run()
    assert (queues.taken, queues.at_once) == (1, [2])


async def test_no_more_is_taken_than_there_is_room_for() -> None:
    queues = Queues({(bucket, "a"): 30 for bucket in range(4)}, room=50)
    work = asyncio.create_task(queues.queue_reader.work())
    async with asyncio.timeout(10):
        while queues.room:
            await asyncio.sleep(0)
    assert (queues.taken, queues.room) == (50, 0)
    queues.room = 1000
    queues.queue_reader.room_made()
    async with asyncio.timeout(10):
        await queues.empty.wait()
    queues.queue_reader.stop()
    await work
    assert queues.taken == 120


async def test_a_take_that_failed_is_tried_again() -> None:
    queues = Queues({(0, "a"): 5})
    queues.refused = 1
    await queues.run()
    assert queues.taken == 5


async def test_room_that_comes_back_by_itself_is_used() -> None:
    """Nothing ends and nothing is announced: the event loop was late, and is not any more."""
    queues = Queues({(0, "a"): 3}, room=0)

    async def make_room() -> None:
        await asyncio.sleep(0)  # the first look finds none
        queues.room = 5

    await asyncio.gather(queues.run(), make_room())
    assert queues.taken == 3
