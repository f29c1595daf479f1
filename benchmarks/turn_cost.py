"""The fixed cost of a turn: in Redis, in the worker, and step by step."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from benchmarks.figures import Figure
from benchmarks.rig import AGENT, LEASE_MS, TOKEN, Cpu, Rig, paced, rig
from selfhost_transport.commands.children import Child
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.store.entries import Ref
from selfhost_transport.store.keys import bucket_of
from selfhost_transport.store.turn_operations import CloseMessage, CreateMessage, WriteOperation
from selfhost_transport.store.turn_request import build_turn_request, unpack_context
from selfhost_transport.store.turn_store import Accepted, Lease, Policy
from selfhost_transport.turns import chunks as p
from selfhost_transport.turns import encoder, inputs, lifecycle
from selfhost_transport.turns.lifecycle import RunReason, StepReason
from selfhost_transport.turns.ui import TextPart

T = TypeVar("T")

SESSIONS = 200
RATE = 100.0
"""Turns per second of a worker that is not busy: every turn then pays for waking the processes."""
_AT_ONCE = 100
_POLL_S = 0.02
_PATIENCE_S = 60.0


async def submit(
    bench: Rig, session: str, text: str, *, policy: Policy = Policy.CONCURRENT, max_attempts: int = 3
) -> Accepted:
    """Send a text as a gateway does."""
    messages = inputs.user_message([TextPart(text)], inputs.InputIds(), client_id="user-1")
    for message in messages:
        message.client_id, message.connection_id = "user-1", "connection"
    request = build_turn_request(session, messages, agent=AGENT, policy=policy, max_attempts=max_attempts)
    return await bench.turns.submit(request)


async def ended(bench: Rig, status: str = "completed") -> int:
    """How many turns have ended so, in all."""
    counts = await asyncio.gather(
        *(bench.redis.command("HGET", f"{base}stats", status) for base in bench.keys.bases())
    )
    return sum(int(count or 0) for count in counts)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look at another process until it has come so far. Raises TimeoutError."""
    async with asyncio.timeout(_PATIENCE_S):
        while not await condition():  # noqa: ASYNC110 - it tells no one
            await asyncio.sleep(_POLL_S)


async def _have_ended(bench: Rig, turns: int) -> bool:
    return await ended(bench) >= turns


@asynccontextmanager
async def scripted_worker(bench: Rig, concurrency: int = SESSIONS) -> AsyncIterator[Child]:
    """A worker process with the scripted model."""
    environment = {f"{ENV_PREFIX}CONCURRENCY": str(concurrency)}
    child = await Child.start("worker", ("--redis", bench.server.url), environment)
    try:
        await child.ready()
        yield child
    finally:
        await child.stop()


async def measure(turns: int) -> list[Figure]:
    """One-token turns through one worker, at saturation and at a moderate rate; and each step alone."""
    async with rig() as bench, scripted_worker(bench) as worker:
        await _saturate(bench, worker, turns // 4)
        found = await _saturate(bench, worker, turns)
        found += await _moderate(bench, worker, turns / 10 / RATE)
    async with rig() as bench:
        return found + await _steps(bench, turns)


async def _saturate(bench: Rig, worker: Child, turns: int) -> list[Figure]:
    """The worker sleeps while the turns are accepted, and then finds them all waiting."""
    before = await ended(bench)
    os.kill(worker.pid, signal.SIGSTOP)
    redis = Cpu(bench.server.pid)
    for start in range(0, turns, _AT_ONCE):
        sends = (
            submit(bench, f"bench-{n % SESSIONS}", "script: tokens=1") for n in range(start, start + _AT_ONCE)
        )
        await asyncio.gather(*sends)
    submit_us, cpu, began = redis.spent_us() / turns, Cpu(worker.pid), time.monotonic()
    os.kill(worker.pid, signal.SIGCONT)
    await until(lambda: _have_ended(bench, before + turns))
    took = time.monotonic() - began
    return [
        Figure("turns", "one-token turns through one worker", turns / took, "turns/s"),
        Figure("turns", "a one-token turn at saturation: worker", cpu.spent_us() / turns, "us"),
        Figure("turns", "a one-token turn at saturation: Redis", submit_us + redis.spent_us() / turns, "us"),
    ]


async def _moderate(bench: Rig, worker: Child, seconds: float) -> list[Figure]:
    before, sent = await ended(bench), 0
    sends: list[asyncio.Task[Accepted]] = []

    def send(due: int) -> None:
        nonlocal sent
        for _ in range(due):
            sends.append(asyncio.create_task(submit(bench, f"bench-{sent % SESSIONS}", "script: tokens=1")))
            sent += 1

    redis, cpu = Cpu(bench.server.pid), Cpu(worker.pid)
    await paced(RATE, max(seconds, 1.0), send)
    await asyncio.gather(*sends)
    await until(lambda: _have_ended(bench, before + sent))
    return [
        Figure("turns", f"a one-token turn at {RATE:.0f}/s: worker", cpu.spent_us() / sent, "us"),
        Figure("turns", f"a one-token turn at {RATE:.0f}/s: Redis", redis.spent_us() / sent, "us"),
    ]


async def _steps(bench: Rig, turns: int) -> list[Figure]:
    """Each call of a turn's life alone: CPU of Redis, and of the process that makes it."""
    found: list[Figure] = []
    sessions = [f"bench-{number}" for number in range(turns)]
    leases: list[Lease] = []
    texts: dict[str, Ref] = {}

    async def take(session: str) -> None:
        lease = await bench.turns.take(bucket_of(session, bench.keys.buckets), AGENT, "bench", LEASE_MS)
        assert lease is not None
        leases.append(lease)

    async def begin(lease: Lease) -> None:
        ops = _encoder(lease).encode(p.TextStart("text-0"))
        step: list[WriteOperation] = [
            CreateMessage(op.message, op.closing, TOKEN) for op in ops if isinstance(op, encoder.Create)
        ]
        texts[lease.turn_id] = Ref((await bench.turns.write(lease, 1, step))[-1])

    async def end(lease: Lease) -> None:
        context = unpack_context(lease.context)
        closing = CloseMessage(texts[lease.turn_id], {"ai": {"transport": {"status": "complete"}}})
        step = lifecycle.step_end(context, lease.step_start_serial, StepReason.COMPLETE)
        last = lifecycle.run_end(context, RunReason.COMPLETE)
        await bench.turns.end(lease, "completed", [closing, CreateMessage(step), CreateMessage(last)])

    found += await _step(bench, "accept", sessions, lambda session: submit(bench, session, "hello"))
    found += await _step(bench, "take", sessions, take)
    found += await _step(bench, "begin an answer", leases, begin)
    found += await _step(bench, "end", leases, end)
    return found


async def _step(
    bench: Rig, name: str, items: Sequence[T], do: Callable[[T], Awaitable[object]]
) -> list[Figure]:
    redis, own = Cpu(bench.server.pid), Cpu(os.getpid())
    for start in range(0, len(items), _AT_ONCE):
        await asyncio.gather(*(do(item) for item in items[start : start + _AT_ONCE]))
    return [
        Figure("turns", f"{name}: Redis", redis.spent_us() / len(items), "us"),
        Figure("turns", f"{name}: caller", own.spent_us() / len(items), "us"),
    ]


def _encoder(lease: Lease) -> encoder.Encoder:
    return encoder.Encoder(unpack_context(lease.context), "message", lease.step_start_serial)
