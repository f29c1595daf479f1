"""What waits for whom: a queued turn for the one before it, a turn whose worker is killed for its lease."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from benchmarks.figures import Figure
from benchmarks.rig import Rig, rig
from benchmarks.turn_cost import SESSIONS, ended, scripted_worker, submit, until
from benchmarks.turn_stops import percentile
from selfhost_transport.commands.children import Child
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.store.entries import Appended, Created, unpack_entry
from selfhost_transport.store.turn_store import Policy
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.serial import Position

_FIRST = "script: tokens=5 rate=100"
_NEXT = "script: tokens=1"
_PATIENCE_S = 30.0


class _Watch:
    """When terminals and texts of a session were announced, by the monotonic clock."""

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.texts: list[float] = []
        self.both_ended = asyncio.Event()

    def __call__(self, payload: bytes) -> None:
        now = time.monotonic()
        at, _, rest = payload.partition(b" ")
        entry = unpack_entry(Position.parse_id(at.decode()), rest.partition(b" ")[2])
        if isinstance(entry, Appended) and entry.data:
            self.texts.append(now)
        elif isinstance(entry, Created) and any(message.name == h.AI_RUN_END for message in entry.messages):
            self.ended.append(now)
            if len(self.ended) == 2:
                self.both_ended.set()


async def queue_wait(sessions: int) -> list[Figure]:
    """From the terminal of a turn to the first token of the one that waited for it, as Redis announces them."""
    async with rig() as bench, scripted_worker(bench):
        alone = [await _wait(bench, f"queue-{number}") for number in range(sessions)]
        together = await asyncio.gather(*(_wait(bench, f"crowd-{number}") for number in range(sessions)))
    return [
        Figure("turns", f"queue wait, {name}, p{per_cent}", percentile(waits, per_cent) * 1e3, "ms")
        for name, waits in (("one session", alone), (f"{sessions} sessions at once", list(together)))
        for per_cent in (50, 99)
    ]


async def _wait(bench: Rig, session: str) -> float:
    watch, subscriber = _Watch(), Subscriber(bench.server.url)
    try:
        await subscriber.subscribe(bench.keys.channel(session), watch)
        await submit(bench, session, _FIRST, policy=Policy.QUEUE)
        await submit(bench, session, _NEXT, policy=Policy.QUEUE)
        async with asyncio.timeout(_PATIENCE_S):
            await watch.both_ended.wait()
    finally:
        await subscriber.close()
    return next(text for text in watch.texts if text > watch.ended[0]) - watch.ended[0]


async def killed(turns: int, lease_ms: int) -> list[Figure]:
    """`kill -9` of a worker to the terminals of its turns, written by another worker: `error`, without a retry."""
    async with rig() as bench:
        environment = {f"{ENV_PREFIX}LEASE_MS": str(lease_ms), f"{ENV_PREFIX}CONCURRENCY": str(SESSIONS)}
        options = ("--redis", bench.server.url)
        first = await Child.start("worker", options, environment)
        await first.ready()
        for number in range(turns):
            await submit(bench, f"kill-{number}", "script: tokens=100000 rate=10", max_attempts=1)
        await until(lambda: _all_active(bench, turns))
        second = await Child.start("worker", options, environment)
        try:
            await second.ready()
            os.kill(first.pid, signal.SIGKILL)
            took = await _ends(bench, turns)
        finally:
            await asyncio.gather(first.stop(), second.stop())
    name = f"worker killed, lease of {lease_ms / 1000:g} s, to terminal"
    return [
        Figure("turns", f"{name}, p50", percentile(took, 50), "s"),
        Figure("turns", f"{name}, slowest of {turns}", max(took), "s"),
    ]


async def _all_active(bench: Rig, turns: int) -> bool:
    held = await asyncio.gather(
        *(bench.redis.command("ZCARD", f"{base}leases") for base in bench.keys.bases())
    )
    return sum(map(int, held)) == turns


async def _ends(bench: Rig, turns: int) -> list[float]:
    """How long each took from now, looked at every few milliseconds."""
    began, took = time.monotonic(), list[float]()
    while len(took) < turns:
        count = await ended(bench, "failed")
        took += [time.monotonic() - began] * (count - len(took))
        await asyncio.sleep(0.01)
    return took
