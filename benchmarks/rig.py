"""What the benchmarks stand on: a Redis, a gateway, a session with an open turn, and clocks of CPU time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from selfhost_transport.commands.children import Child
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_operations import CreateMessage, OpenText
from selfhost_transport.store.turn_request import build_turn_request, unpack_context
from selfhost_transport.store.turn_store import Lease, TurnStore
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import encoder, inputs
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message

AGENT = "assistant"
KEY = "bench.key:secret"
LEASE_MS = 60_000
# A token as models send them.
TOKEN = "token "
_GATEWAY = """
[[keys]]
name = "bench.key"
secret = "secret"
[[namespaces]]
id = "*"
agent = "assistant"
"""


@dataclass(slots=True)
class Rig:
    """Redis with the stores of one process on it."""

    server: EmbeddedRedis
    redis: RedisConnection
    keys: Keyspace
    sessions: SessionStore
    turns: TurnStore

    async def open_text(self, session: str) -> OpenTurn:
        """A turn that streams text, as a worker has it after its first chunk."""
        ids = inputs.InputIds()
        messages = inputs.user_message([TextPart("hello")], ids, client_id="user-1")
        for message in messages:
            message.client_id, message.connection_id = "user-1", "connection"
        await self.turns.submit(build_turn_request(session, messages, agent=AGENT))
        lease = await self.turns.take(bucket_of(session, self.keys.buckets), AGENT, "bench", LEASE_MS)
        assert lease is not None and lease.session == session
        coder = encoder.Encoder(unpack_context(lease.context), "message", lease.step_start_serial)
        created = coder.encode(p.TextStart("text-0"))[-1]
        assert isinstance(created, encoder.Create)
        (position,) = await self.turns.write(lease, 1, [CreateMessage(created.message, created.closing)])
        return OpenTurn(lease, OpenText(Ref(position)), created.message)


@dataclass(slots=True)
class OpenTurn:
    """A lease, the open message as its writer sees it, and the message as it was created."""

    lease: Lease
    text: OpenText
    header: Message


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """An empty Redis and connections to it."""
    with EmbeddedRedis() as server:
        redis, keys = RedisConnection(server.url), Keyspace()
        try:
            yield Rig(server, redis, keys, SessionStore(redis, keys), TurnStore(redis, keys))
        finally:
            await redis.close()


@asynccontextmanager
async def gateway(server: EmbeddedRedis, more: str = "") -> AsyncIterator[Child]:
    """A gateway process; `(await child.ready())` is its address. `more`: further lines of its configuration."""
    with TemporaryDirectory(prefix="benchmarks-") as folder:
        config = Path(folder) / "config.toml"
        config.write_text(_GATEWAY + more)
        options = ("--redis", server.url, "--config", str(config), "--host", "127.0.0.1", "--port", "0")
        child = await Child.start("gateway", options, {})
        try:
            await child.ready()
            yield child
        finally:
            await child.stop()


class Cpu:
    """CPU time of a process, in microseconds since the last look."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._last = self._now_us()

    def spent_us(self) -> float:
        """Since the last call, or the beginning."""
        now = self._now_us()
        spent, self._last = now - self._last, now
        return spent

    def _now_us(self) -> float:
        """By the scheduler's own count, in nanoseconds; elsewhere than on Linux in hundredths of a second."""
        tasks = Path(f"/proc/{self._pid}/task")
        if tasks.is_dir():
            spent = [int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()]
            return sum(spent) / 1e3
        times = psutil.Process(self._pid).cpu_times()
        return float(times.user + times.system) * 1e6


def per_call_us(call: Callable[[], object], seconds: float = 0.5) -> float:
    """CPU microseconds of one call: the best of several rounds, so that a busy machine disturbs less."""
    count = 1
    while True:
        started = time.process_time()
        for _ in range(count):
            call()
        if (spent := time.process_time() - started) > seconds / 10:
            break
        count *= 2
    best = spent / count
    for _ in range(9):
        started = time.process_time()
        for _ in range(count):
            call()
        best = min(best, (time.process_time() - started) / count)
    return best * 1e6


async def paced(rate: float, seconds: float, step: Callable[[int], None], tick_s: float = 0.005) -> int:
    """Call `step` with how many are due, `rate` per second on an absolute schedule. Returns how many in all."""
    started, done = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < seconds:
        due = int(elapsed * rate) - done
        if due:
            step(due)
            done += due
        await asyncio.sleep(tick_s)
    return done
