"""Append: a token from the worker's hands into Redis, at saturation, against the ceiling of the same script.

The ceiling is redis-benchmark: a C client, the same script and arguments, one pipelined connection.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time

from benchmarks.figures import Figure
from benchmarks.rig import TOKEN, Cpu, OpenTurn, Rig, rig
from selfhost_transport.store import scripts
from selfhost_transport.store.entries import pack_append_body

_TURNS = 200
_PER_ROUND = 5
_PIPELINE = 500


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return asyncio.run(_run(seconds))


async def _run(seconds: float) -> list[Figure]:
    async with rig() as bench:
        turns = [await bench.open_text(f"bench-{number}") for number in range(_TURNS)]
        ours, worker_us, redis_us = await _saturate(bench, turns, seconds)
        found = [
            Figure("append", "worker's path", ours, "appends/s"),
            Figure("append", "worker CPU", worker_us, "us"),
            Figure("append", "Redis CPU", redis_us, "us"),
            Figure("append", "one at a time, p50", await _latency_us(bench, turns[0]), "us"),
        ]
        ceiling = await asyncio.to_thread(_ceiling, bench, turns[1])
        if ceiling:
            found.append(Figure("append", "redis-benchmark, same script", ceiling, "appends/s"))
            found.append(Figure("append", "reached", ours / ceiling, "ratio of the ceiling"))
        return found


async def _saturate(bench: Rig, turns: list[OpenTurn], seconds: float) -> tuple[float, float, float]:
    """(appends per second, worker us, Redis us): a round of appends leaves while the one before is answered."""
    worker, server = Cpu(os.getpid()), Cpu(bench.server.pid)
    started, done = time.monotonic(), 0
    waiting: list[tuple[OpenTurn, asyncio.Future[bytes]]] = []
    while (elapsed := time.monotonic() - started) < seconds:
        leaving = [
            (turn, bench.turns.append(turn.lease, turn.text, TOKEN))
            for _ in range(_PER_ROUND)
            for turn in turns
        ]
        await asyncio.sleep(0)
        done += await _answered(bench, waiting)
        waiting = leaving
    done += await _answered(bench, waiting)
    return done / elapsed, worker.spent_us() / done, server.spent_us() / done


async def _answered(bench: Rig, replies: list[tuple[OpenTurn, asyncio.Future[bytes]]]) -> int:
    for turn, reply in replies:
        bench.turns.check_append(turn.lease, await reply)
    return len(replies)


async def _latency_us(bench: Rig, turn: OpenTurn) -> float:
    times = []
    for _ in range(500):
        started = time.perf_counter()
        await bench.turns.append(turn.lease, turn.text, TOKEN)
        times.append(time.perf_counter() - started)
    return sorted(times)[len(times) // 2] * 1e6


def _ceiling(bench: Rig, turn: OpenTurn) -> float:
    """Appends per second of redis-benchmark; 0 where it is not installed.

    It repeats one call. A chunk must have the offset where its text ends, so every call gets a text of its own
    (`__rand_int__`) and is the first chunk of it.
    """
    program = shutil.which("redis-benchmark")
    if program is None:
        return 0.0
    session, lease = turn.lease.session, turn.lease
    base = bench.keys.base_of(session)
    keys = [
        f"{base}f:{lease.turn_id}:{session}",
        f"{base}l:{session}",
        f"{base}p:{session}",
        f"{base}x:__rand_int__:{session}",
    ]
    entry = turn.text.entry_head + pack_append_body(TOKEN)[: -len(TOKEN)]
    arguments: list[str | bytes] = [str(lease.fence), f"{base}n:{session}", "0", TOKEN, entry]
    command: list[str | bytes] = [
        program, "-p", str(bench.server.url.rpartition(":")[2].partition("/")[0]), "-n", "200000", "-c", "1",
        "-P", str(_PIPELINE), "-r", "1000000000", "--csv", "EVALSHA", scripts.load("append").digest, "4",
        *keys, *arguments,
    ]  # fmt: skip
    printed = subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")
    return float(printed.splitlines()[-1].split('","')[1].strip('"'))
