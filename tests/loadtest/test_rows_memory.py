"""Acceptance rows about what stays in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from benchmarks.rig import OpenTurn, Rig, rig
from selfhost_transport.store.history import Query
from selfhost_transport.store.options import StoreOptions
from selfhost_transport.store.turn_operations import CloseMessage, CreateMessage
from selfhost_transport.store.turn_store import TurnStore
from tests.processes import wait_until

SESSION = "compact"
TOKENS = 2000
# How long a live log is kept for readers that resume.
WINDOW_MS = 500


def text() -> Iterator[str]:
    return (f"{number} " for number in range(TOKENS))


async def bytes_of(bench: Rig) -> int:
    """What the session occupies, key by key."""
    base = bench.keys.base_of(SESSION)
    keys = await bench.redis.command("KEYS", f"{base.replace('{', '?').replace('}', '?')}*{SESSION}")
    return sum([await bench.redis.command("MEMORY", "USAGE", key, "SAMPLES", 0) or 0 for key in keys])


async def end(bench: Rig, turn: OpenTurn) -> None:
    await bench.turns.write(turn.lease, 2, [CloseMessage(turn.text.ref, turn.header.extras or {})])
    await bench.turns.end(turn.lease, "completed", [CreateMessage(turn.header)])


async def log_expires(bench: Rig) -> None:
    async def is_gone() -> bool:
        return not await bench.redis.command("EXISTS", f"{bench.keys.base_of(SESSION)}l:{SESSION}")

    await wait_until(is_gone, WINDOW_MS / 1000 + 5)


async def test_str_17_a_finished_message_is_compacted() -> None:
    async with rig() as bench:
        options = StoreOptions(window_ms=WINDOW_MS, ended_turn_ms=WINDOW_MS, idempotency_ms=WINDOW_MS)
        bench.turns = TurnStore(bench.redis, bench.keys, options)
        turn = await bench.open_text(SESSION)
        await asyncio.gather(*(bench.turns.append(turn.lease, turn.text, chunk) for chunk in text()))
        streaming = await bytes_of(bench)
        await end(bench, turn)

        await log_expires(bench)
        finished = await bytes_of(bench)
        assert finished * 5 <= streaming
        # Late readers get the whole text, once.
        page = await bench.sessions.history.page(SESSION, Query())
        whole = "".join(text())
        assert [message.data for message in page.messages].count(whole) == 1


async def test_ops_16_a_finished_answer_costs_its_text_and_a_few_records() -> None:
    """One of many turns of a session: the text, one record, and the five messages of its life."""
    turns = 20
    async with rig() as bench:
        options = StoreOptions(window_ms=WINDOW_MS, ended_turn_ms=WINDOW_MS, idempotency_ms=WINDOW_MS)
        bench.turns = TurnStore(bench.redis, bench.keys, options)
        for _ in range(turns):
            turn = await bench.open_text(SESSION)
            await asyncio.gather(*(bench.turns.append(turn.lease, turn.text, chunk) for chunk in text()))
            await end(bench, turn)

        await log_expires(bench)
        size = sum(len(chunk) for chunk in text())
        messages = 6
        per_turn = await bytes_of(bench) / turns
        print(f"{per_turn:.0f} bytes per turn, text {size}")
        assert per_turn <= 1.2 * size + 1024 * messages
