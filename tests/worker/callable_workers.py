"""Workers that take turns for real and run none: what calls them, and who comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agent_worker.runtime.control_channel import ControlChannel
from agent_worker.runtime.queue_reader import QueueReader
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.duties import Duties
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.names import part
from selfhost_transport.store.turn_store import TurnStore
from tests.processes import wait_until
from tests.store.turns import LEASE_MS, request

AGENT = "a"


class CallableWorker:
    """As many turns at once as `room`. `calls`: notifications that woke it; `taken`: ids of its turns."""

    def __init__(self, url: str, turns: TurnStore, name: str, room: int) -> None:
        self.name, self.room = name, room
        self.calls = 0
        self.pushes: list[str] = []
        self.taken: list[str] = []
        self._turns = turns
        self._held: list[Callable[[], None]] = []
        self._proceeds = asyncio.Event()
        self._proceeds.set()
        pairs = [(bucket, AGENT) for bucket in range(turns.keys.buckets)]
        self.reader = QueueReader(
            pairs, self._take, lambda: self.room, call_again=turns.call_again, found_empty=self._looked
        )
        self._control = ControlChannel(
            name, lambda push, *what: self.pushes.append(push), self._called, lambda: None
        )
        self._subscriber = Subscriber(url, on_reconnect=self.reader.look_into_all)
        self._found_empty = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Returns once it has looked everywhere, or has no room."""
        await self._control.subscribe_all(self._subscriber, self._turns.keys.bases())
        self._tasks = [asyncio.create_task(self.reader.work()), asyncio.create_task(self.reader.forward())]
        await wait_until(lambda: self._found_empty.is_set() or self.room <= 0)

    def end_turn(self) -> None:
        """One of its turns has ended."""
        self.room += 1
        self.reader.room_made()

    def freeze(self) -> None:
        """It does nothing more, and its connections stay."""
        self._proceeds.clear()

    def proceed(self) -> None:
        """It does what it did not notice meanwhile."""
        self._proceeds.set()
        held, self._held = self._held, []
        for wake in held:
            wake()

    @property
    def frozen(self) -> bool:
        return not self._proceeds.is_set()

    async def drain(self) -> None:
        """It takes nothing more, and stays for its turns."""
        self.room = -100
        self.reader.stop()
        await self._tasks[0]

    async def kill(self) -> None:
        """Returns once Redis knows too: until then it counts the worker among those who hear a call."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._subscriber.close()
        await wait_until(self._is_unheard, 20, "Redis to read that a worker has gone")

    async def _is_unheard(self) -> bool:
        channels = [f"{base}ctl:{part(self.name)}" for base in self._turns.keys.bases()]
        heard = await self._turns.redis.command("PUBSUB", "NUMSUB", *channels)
        return not any(heard[1::2])

    def _looked(self) -> None:
        self._found_empty.set()

    def _called(self, bucket: int, agent: str, to_few: bool) -> None:
        def wake() -> None:
            self.calls += 1
            self.reader.note_call(bucket, agent, to_few=to_few)

        self._held.append(wake) if self.frozen else wake()

    async def _take(self, bucket: int, agent: str, spare: bool) -> bool:
        await self._proceeds.wait()
        lease = await self._turns.take(bucket, agent, self.name, LEASE_MS, spare=spare)
        if lease is None:
            return False
        self.taken.append(lease.turn_id)
        self.room -= 1
        return lease.more or not spare


class Fleet:
    """Workers of one agent, and people who send."""

    def __init__(self, url: str, turns: TurnStore) -> None:
        self.turns = turns
        self.workers: list[CallableWorker] = []
        self._url = url
        self._duties = Duties(turns.redis, turns.keys)
        self._sent = self._joined = 0

    async def join(self, room: int = 100) -> CallableWorker:
        worker = CallableWorker(self._url, self.turns, f"w{self._joined}", room)
        self._joined += 1
        self.workers.append(worker)
        await worker.start()
        return worker

    async def send(self, *sessions: str) -> list[str]:
        """A turn into each session, all at once; their ids."""
        ids = [f"t{self._sent + number}" for number in range(len(sessions))]
        self._sent += len(sessions)
        await asyncio.gather(
            *(
                self.turns.submit(request(turn, session=session))
                for turn, session in zip(ids, sessions, strict=True)
            )
        )
        return ids

    async def look_again(self) -> None:
        """What one of all workers does every second."""
        waiting = await self._duties.buckets_with_turns(AGENT)
        await asyncio.gather(*(self.turns.call_again(bucket, AGENT) for bucket in waiting))

    async def settled(self, timeout: float = 5.0) -> None:
        """Every turn has a worker, or no worker has room."""

        async def settled() -> bool:
            free = any(worker.room > 0 for worker in self.workers if not worker.frozen)
            return not free or not await self._duties.buckets_with_turns(AGENT)

        await wait_until(settled, timeout)

    async def kill(self, worker: CallableWorker) -> None:
        self.workers.remove(worker)
        await worker.kill()


@asynccontextmanager
async def fleet(url: str, prefix: str, buckets: int = 4) -> AsyncIterator[Fleet]:
    """A fleet without workers yet."""
    connection = RedisConnection(url)
    one = Fleet(url, TurnStore(connection, Keyspace(prefix, buckets)))
    try:
        yield one
    finally:
        for worker in one.workers:
            with contextlib.suppress(ConnectionError):
                await worker.kill()
        await connection.close()
