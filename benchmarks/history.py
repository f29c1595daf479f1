"""History: pages of a session of 10,000 messages, and of answers that were streamed token by token (HIS-11)."""

from __future__ import annotations

import asyncio
import base64
import time

import httpx

from benchmarks.figures import Figure
from benchmarks.rig import KEY, TOKEN, Cpu, Rig, gateway, rig
from selfhost_transport.wire.message import Message

_MESSAGES = 10_000
_PER_PUBLISH = 10
_ANSWER_TOKENS = 1000
_ROUNDS = 20
_PAGE = 100


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return asyncio.run(_run())


async def _run() -> list[Figure]:
    async with rig() as bench, gateway(bench.server) as child:
        await _fill(bench, "bench:long")
        await _stream(bench, "bench:streamed")
        credentials = base64.b64encode(KEY.encode()).decode()
        async with httpx.AsyncClient(
            base_url=await child.ready(), headers={"Authorization": f"Basic {credentials}"}
        ) as http:
            cpu = Cpu(child.pid)
            first, following = await _page_ms(http, "bench:long")
            page_us = cpu.spent_us() / (2 * _ROUNDS)
            streamed, _ = await _page_ms(http, "bench:streamed")
        return [
            Figure(
                "history", f"first page of {_PAGE}, {_MESSAGES} messages in the session", first, "ms, p50"
            ),
            Figure("history", "next page", following, "ms, p50"),
            Figure("history", "gateway, per message", page_us / _PAGE, "us"),
            Figure("history", f"first page, an answer of {_ANSWER_TOKENS} tokens on it", streamed, "ms, p50"),
        ]


async def _fill(bench: Rig, session: str) -> None:
    for start in range(0, _MESSAGES, _PER_PUBLISH):
        numbers = range(start, start + _PER_PUBLISH)
        messages = [Message(name="note", data=f"message {number}") for number in numbers]
        await bench.sessions.publish(session, messages)


async def _stream(bench: Rig, session: str) -> None:
    turn = await bench.open_text(session)
    await asyncio.gather(*(bench.turns.append(turn.lease, turn.text, TOKEN) for _ in range(_ANSWER_TOKENS)))


async def _page_ms(http: httpx.AsyncClient, session: str) -> tuple[float, float]:
    """Median times of the first and of the following page; 0 for a page that does not exist."""
    first, following = [], []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        page = await http.get(f"/channels/{session}/messages", params={"limit": str(_PAGE)})
        first.append(time.perf_counter() - started)
        page.raise_for_status()
        if "next" in page.links:
            # Relative to the messages of the channel (protocol section 9.1).
            url = page.url.join(page.links["next"]["url"])
            started = time.perf_counter()
            (await http.get(url)).raise_for_status()
            following.append(time.perf_counter() - started)
    return _median_ms(first), _median_ms(following)


def _median_ms(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2] * 1e3 if seconds else 0.0
