"""Notify: an entry from a script's PUBLISH to the gateway's callback, watching many sessions on one connection."""

from __future__ import annotations

import asyncio
import os

from benchmarks.figures import Figure
from benchmarks.rig import TOKEN, Cpu, paced, rig
from selfhost_transport.redis_io.subscriber import Subscriber

_RATE = 10_000.0


def run(seconds: float) -> list[Figure]:
    """Figures of this stage."""
    return [figure for sessions in (100, 2000) for figure in asyncio.run(_run(seconds, sessions))]


async def _run(seconds: float, sessions: int) -> list[Figure]:
    async with rig() as bench:
        arrived = 0

        def callback(payload: bytes) -> None:
            nonlocal arrived
            arrived += 1

        subscriber = Subscriber(bench.server.url)
        channels = [bench.keys.channel(f"s{number}") for number in range(sessions)]
        await asyncio.gather(*(subscriber.subscribe(channel, callback) for channel in channels))
        payload = b"1763000000000-1 1763000000000-0 A1763000000000-0:0\n\x91\xa6" + TOKEN.encode()
        # Publishing has its price too; the same again without a subscriber tells how much.
        mine, server = Cpu(os.getpid()), Cpu(bench.server.pid)
        sent = 0

        def publish(prefix: str, due: int) -> None:
            nonlocal sent
            for _ in range(due):
                bench.redis.command("PUBLISH", prefix + channels[sent % sessions], payload)
                sent += 1

        await paced(_RATE, seconds, lambda due: publish("", due))
        with_us, with_redis_us, count = mine.spent_us() / sent, server.spent_us() / sent, sent
        sent = 0
        await paced(_RATE, seconds, lambda due: publish("no one:", due))
        without_us, without_redis_us = mine.spent_us() / sent, server.spent_us() / sent
        await subscriber.close()
        return [
            Figure("notify", f"receiving, {sessions} sessions", with_us - without_us, "us"),
            Figure("notify", f"Redis, {sessions} sessions", with_redis_us - without_redis_us, "us"),
            Figure("notify", f"arrived, {sessions} sessions", arrived / count, "of those published"),
        ]
