"""Cancel: tokens that enter a session after the cancel was acknowledged, ours against naive workers (INT-1).

    python -m benchmarks.naive_cancel compare [--turns 300]

Ours is the real worker process with the scripted model; every token is an append of its own. The naive worker is a
process too, and does what is usually done: it looks at a flag in Redis, every so many tokens, and appends without a check.
All run on a real Redis, with the same rate, and are cancelled at random moments.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from benchmarks.rig import AGENT, Rig, rig
from selfhost_transport.commands.children import Child
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.settings import ENV_PREFIX
from selfhost_transport.store.entries import Appended, Created, Entry
from selfhost_transport.store.turn_request import build_turn_request
from selfhost_transport.store.turn_store import CancelFilter, Scope
from selfhost_transport.turns import headers as h
from selfhost_transport.turns import inputs
from selfhost_transport.turns.ui import TextPart
from selfhost_transport.wire.message import Message
from selfhost_transport.wire.serial import Position

TOKENS, RATE = 2000, 50
# Cancels fall into this span after the start, in seconds; then stragglers are given time to arrive.
SPAN_S, STRAGGLE_S = (0.5, 4.0), 0.5
POLLS = (1, 10)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a cancel let through: tokens behind the acknowledged cancel, for each turn."""

    name: str
    late: list[int]

    def line(self) -> str:
        """For people."""
        dirty = sum(1 for count in self.late if count)
        worst, total = max(self.late), sum(self.late)
        return f"{self.name:50} {dirty:4} of {len(self.late)} turns   worst {worst:3}   tokens {total:5}"


@app.command()
def compare(turns: Annotated[int, typer.Option(help="Turns for each worker.")] = 300) -> None:
    """Run all workers and print how many turns had content after their cancel."""
    ours = asyncio.run(_with_rig(partial(_ours, count=turns)))
    print(ours.line(), flush=True)
    for every in POLLS:
        naive = asyncio.run(_with_rig(partial(_naive, count=turns, every=every)))
        print(naive.line(), flush=True)
    raise typer.Exit(1 if any(ours.late) else 0)


async def _with_rig(run: Callable[[Rig], Awaitable[Outcome]]) -> Outcome:
    async with rig() as bench:
        return await run(bench)


async def _ours(bench: Rig, count: int) -> Outcome:
    environment = {f"{ENV_PREFIX}ROLLUP_WINDOW_MS": "0", f"{ENV_PREFIX}CONCURRENCY": str(count)}
    worker = await Child.start("worker", ("--redis", bench.server.url), environment)
    try:
        await worker.ready()
        sessions = [f"ours-{number}" for number in range(count)]
        turns = await asyncio.gather(*(_send(bench, session) for session in sessions))
        pairs = list(zip(sessions, turns, strict=True))
        cancels = await asyncio.gather(*(_cancel(bench, *pair) for pair in pairs))
        await asyncio.sleep(STRAGGLE_S)
        late = [await _late(bench, *pair, cancel) for pair, cancel in zip(pairs, cancels, strict=True)]
        return Outcome("check and append in one script", late)
    finally:
        await worker.stop()


async def _send(bench: Rig, session: str) -> str:
    script = TextPart(f"script: tokens={TOKENS} rate={RATE}")
    messages = inputs.user_message([script], inputs.InputIds(), client_id="user-1")
    return (await bench.turns.submit(build_turn_request(session, messages, agent=AGENT))).turn_id


async def _cancel(bench: Rig, session: str, turn: str) -> Position:
    await asyncio.sleep(random.uniform(*SPAN_S))
    message = Message(name=h.AI_CANCEL, client_id="user-1", extras=h.make_extras({h.RUN_ID: turn}))
    cancelled = await bench.turns.cancels.cancel(session, CancelFilter(Scope.TURN, turn), message)
    assert cancelled.matched == (turn,), "the turn ended before it was cancelled"
    return cancelled.position


async def _late(bench: Rig, session: str, turn: str, cancel: Position) -> int:
    entries = await bench.sessions.read_after(session, Position.ZERO, 1_000_000)
    outputs = {entry.position for entry in entries if _opens_output(entry, turn)}
    written = [entry for entry in entries if isinstance(entry, Appended) and entry.data]
    assert written, "the turn had not begun to stream"
    late = [entry for entry in written if entry.position > cancel and entry.ref.position in outputs]
    return len(late) + sum(position > cancel for position in outputs)


def _opens_output(entry: Entry, turn: str) -> bool:
    if not isinstance(entry, Created):
        return False
    found = (h.read_headers(message) for message in entry.messages if message.name == h.AI_OUTPUT)
    return any(headers is not None and headers.run_id == turn for headers in found)


async def _naive(bench: Rig, count: int, every: int) -> Outcome:
    arguments = ("-m", "benchmarks.naive_cancel", "naive-worker", bench.server.url, str(count), str(every))
    worker = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    try:
        assert worker.stdout is not None
        await worker.stdout.readline()  # it says when it streams
        cancels = await asyncio.gather(*(_raise_flag(bench, number) for number in range(count)))
        await asyncio.sleep(STRAGGLE_S)
        logs = [
            bench.redis.command("XRANGE", _log(number), f"({cancel.decode()}", "+")
            for number, cancel in enumerate(cancels)
        ]
        label = "before each token" if every == 1 else f"every {every} tokens"
        return Outcome(f"flag polled {label}, append unchecked", [len(await log) for log in logs])
    finally:
        if worker.returncode is None:
            worker.send_signal(signal.SIGTERM)
        await worker.wait()


async def _raise_flag(bench: Rig, number: int) -> bytes:
    """The naive cancel: the flag and the entry that acknowledges it, in one write. Its position."""
    await asyncio.sleep(random.uniform(*SPAN_S))
    raised = bench.redis.command("SET", _flag(number), "1")
    position: bytes = await bench.redis.command("XADD", _log(number), "*", "e", "cancel")
    await raised
    return position


@app.command(hidden=True)
def naive_worker(url: str, count: int, every: int) -> None:
    """The worker of the comparison: `count` turns, the flag read every `every` tokens."""
    asyncio.run(_stream_all(url, count, every))


async def _stream_all(url: str, count: int, every: int) -> None:
    redis = RedisConnection(url)
    try:
        await redis.command("PING")
        print("ready", flush=True)
        await asyncio.gather(*(_stream(redis, number, every) for number in range(count)))
    finally:
        await redis.close()


async def _stream(redis: RedisConnection, number: int, every: int) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for token in range(TOKENS):
        await asyncio.sleep(began + token / RATE - loop.time())
        if token % every == 0 and await redis.command("GET", _flag(number)):
            return
        await redis.command("XADD", _log(number), "*", "e", f"{token} ")


def _flag(number: int) -> str:
    return f"naive:flag:{number}"


def _log(number: int) -> str:
    return f"naive:log:{number}"


if __name__ == "__main__":
    app()
