"""Idle: bytes of a gateway for an attached connection, of Redis for a session and for a finished answer."""

from __future__ import annotations

import asyncio

import psutil

from benchmarks.clients import Listener, client, close_all, start_all
from benchmarks.figures import Figure
from benchmarks.rig import KEY, Rig, gateway, rig
from selfhost_transport.loadtest.plan import Target
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.turn_operations import CloseMessage, CreateMessage
from selfhost_transport.store.turn_store import TurnStore

_WARM = 200
_CONNECTIONS = 1500
_SESSIONS = 2000
_ANSWERS = 200
_ANSWER_TOKENS = 300
# So short that the live log is gone when the memory is read.
_WINDOW_MS = 300


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return [*asyncio.run(_connections()), *asyncio.run(_sessions()), *asyncio.run(_answers())]


async def _connections() -> list[Figure]:
    return [
        Figure("idle", f"gateway, connection attached, {name}", await _connection_kb(channel), "KB")
        for name, channel in (("a session each", "bench:own-{}"), ("one session", "bench:one"))
    ]


async def _connection_kb(channel: str) -> float:
    async with rig() as bench, gateway(bench.server) as child:
        target, process = Target.parse([await child.ready()], KEY, ""), psutil.Process(child.pid)
        # The first connections pay for what is made once.
        warm = [client(target, number, channel.format(number), Listener()) for number in range(_WARM)]
        await start_all(warm)
        before = process.memory_info().rss
        numbers = range(_WARM, _WARM + _CONNECTIONS)
        clients = [client(target, number, channel.format(number), Listener()) for number in numbers]
        await start_all(clients)
        kilobytes = (process.memory_info().rss - before) / _CONNECTIONS / 1024
        await close_all([*warm, *clients])
        return kilobytes


async def _sessions() -> list[Figure]:
    async with rig() as bench:
        before = await _used(bench)
        for number in range(_SESSIONS):
            await bench.sessions.open(f"bench:{number}")
        opened = (await _used(bench) - before) / _SESSIONS
        return [Figure("idle", "Redis, a session that was only attached to", opened, "bytes")]


async def _answers() -> list[Figure]:
    async with rig() as bench:
        bench.turns = TurnStore(bench.redis, bench.keys, StoreOptions(window_ms=_WINDOW_MS, ended_turn_ms=_WINDOW_MS,
                                                                      idempotency_ms=_WINDOW_MS))  # fmt: skip
        bench.sessions.options = bench.turns.options
        before = await _used(bench)
        for number in range(_ANSWERS):
            await _answer(bench, f"bench:{number}")
        text = sum(len(f"{number} ") for number in range(_ANSWER_TOKENS))
        await asyncio.sleep(_WINDOW_MS * 3 / 1e3)  # until the log has expired
        spent = (await _used(bench) - before) / _ANSWERS
        return [
            Figure(
                "idle", f"Redis, a finished answer of {_ANSWER_TOKENS} tokens and its session", spent, "bytes"
            ),
            Figure("idle", "its text", float(text), "bytes"),
        ]


async def _answer(bench: Rig, session: str) -> None:
    turn = await bench.open_text(session)
    replies = [bench.turns.append(turn.lease, turn.text, f"{number} ") for number in range(_ANSWER_TOKENS)]
    await asyncio.gather(*replies)
    extras = turn.header.extras or {}
    await bench.turns.write(turn.lease, 2, [CloseMessage(turn.text.ref, extras)])
    await bench.turns.end(turn.lease, "completed", [CreateMessage(turn.header)])


async def _used(bench: Rig) -> int:
    return int((await bench.redis.info())["used_memory"])
