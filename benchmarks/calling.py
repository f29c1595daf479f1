"""What a new turn costs a fleet of workers that wait: `python -m benchmarks.calling [WORKERS] [TURNS PER SECOND]`.

Every worker is real but for the turn itself: connections and subscriptions of its own, and the reader of its queues; all are
in one process. First each turn calls all workers, as where Redis cannot count who hears; then a few.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from agent_worker.runtime.control_channel import ControlChannel
from agent_worker.runtime.queue_reader import QueueReader
from benchmarks.rig import AGENT, LEASE_MS, Cpu
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.databases import Database
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.turn_store import ClosingMessages, TurnRequest, TurnStore
from selfhost_transport.wire.message import Message

_SECONDS = 8.0
_PARTS = tuple(ClosingMessages.__dataclass_fields__)
# One process cannot start so many at once without being late for all of them.
_STARTED_AT_ONCE = 20


class _Worker:
    def __init__(self, url: str, keys: Keyspace, name: str, *, counted: bool) -> None:
        self.name, self.calls = name, 0
        self.connection = RedisConnection(url)
        self.connection.database = Database(0, counted=counted)
        self.turns = TurnStore(self.connection, keys)
        pairs = [(bucket, AGENT) for bucket in range(keys.buckets)]
        self.reader = QueueReader(pairs, self._take, lambda: 100, call_again=self.turns.call_again)
        self.control = ControlChannel(name, lambda *what: None, self._called)
        self.subscriber = Subscriber(url, on_reconnect=self.reader.look_into_all)

    async def start(self) -> None:
        await self.control.subscribe_all(self.subscriber, self.turns.keys.bases())
        self._tasks = [asyncio.create_task(self.reader.work()), asyncio.create_task(self.reader.forward())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.subscriber.close()
        await self.connection.close()

    def _called(self, bucket: int, agent: str, to_few: bool) -> None:
        self.calls += 1
        self.reader.note_call(bucket, agent, to_few=to_few)

    async def _take(self, bucket: int, agent: str, spare: bool) -> bool:
        lease = await self.turns.take(bucket, agent, self.name, LEASE_MS, spare=spare)
        return lease is not None and lease.more


def _requests() -> Iterator[TurnRequest]:
    closing = ClosingMessages(**{part: Message(name=part) for part in _PARTS})
    number = 0
    while True:
        number += 1
        yield TurnRequest(
            session=f"s{number}", turn_id=f"t{number}", agent=AGENT, messages=[Message(data="hello")], owner="u",
            input_id=f"i{number}", event_id=f"e{number}", fingerprint="f", closing=closing, context=b"",
            cancel_message=Message(name="cancel"),
        )  # fmt: skip


@contextmanager
def _spent(title: str, server: EmbeddedRedis, workers: list[_Worker], turns: int) -> Iterator[None]:
    own, redis, calls = Cpu(os.getpid()), Cpu(server.pid), sum(one.calls for one in workers)
    yield
    calls = sum(one.calls for one in workers) - calls
    print(
        f"{title}: Redis {redis.spent_us() / turns:.0f} us, workers and sender {own.spent_us() / turns:.0f} us, "
        f"{calls / turns:.1f} calls per turn",
        flush=True,
    )


async def _measure(workers: int, rate: float, buckets: int, *, counted: bool) -> None:
    keys, requests = Keyspace("calls", buckets), _requests()
    with EmbeddedRedis() as server:
        fleet = [_Worker(server.url, keys, f"worker-{at}", counted=counted) for at in range(workers)]
        for at in range(0, workers, _STARTED_AT_ONCE):
            await asyncio.gather(*(one.start() for one in fleet[at : at + _STARTED_AT_ONCE]))
        sender = TurnStore(fleet[0].connection, keys)
        turns = int(_SECONDS * rate)
        await asyncio.sleep(2)
        began = time.monotonic()
        with _spent("a few are called" if counted else "all are called", server, fleet, turns):
            for number in range(turns):
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                await sender.submit(next(requests))
            await asyncio.sleep(0.5)
        await asyncio.gather(*(one.close() for one in fleet))


async def _compare(workers: int, rate: float) -> None:
    buckets = 64
    print(f"{workers} workers, {rate:.0f} turns/s, {buckets} buckets")
    for counted in (False, True):
        await _measure(workers, rate, buckets, counted=counted)


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    workers, rate = (given + [200.0, 25.0][len(given) :])[:2]
    asyncio.run(_compare(int(workers), rate))
