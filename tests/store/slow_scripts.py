"""Which scripts keep Redis for long: by the processor time they take, whatever else the machine does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final
from unittest.mock import patch

from selfhost_transport.redis_io.connection import RedisConnection

LONGEST_SCRIPT_US: Final = 10_000


# A guest whose host is busy may count time that it was not given: a script is long when it always is, and when it is
# longer than this one, which takes about 3 ms on an idle machine, in the same time.
TRIES: Final = 6
KNOWN_SCRIPT: Final = "for _ = 1, 8000 do redis.call('GET', KEYS[1]) end"


async def slow_scripts(redis: RedisConnection, work: Callable[[], Awaitable[object]]) -> list[int]:
    """Microseconds of the scripts that took too long. Its calls are made one at a time."""
    known: list[int] = []
    for _ in range(5):
        before = await _processor_us(redis)
        await redis.command("EVAL", KNOWN_SCRIPT, 1, "none")
        known.append(await _processor_us(redis) - before)
    took = await _measured(redis, work)
    assert took, "no script ran"
    longest = max(LONGEST_SCRIPT_US, 3 * sorted(known)[len(known) // 2])
    return [us for us in took if us > longest]


async def _measured(redis: RedisConnection, work: Callable[[], Awaitable[object]]) -> list[int]:
    took: list[int] = []
    one_at_a_time, call = asyncio.Lock(), redis.call

    async def measured(*arguments: Any, **options: Any) -> Any:
        async with one_at_a_time:
            before = await _processor_us(redis)
            reply = await call(*arguments, **options)
            took.append(await _processor_us(redis) - before)
            return reply

    with patch.object(
        redis, "call", lambda *args, **kwargs: asyncio.ensure_future(measured(*args, **kwargs))
    ):
        await work()
    return took


async def _processor_us(redis: RedisConnection) -> int:
    """What the thread that runs scripts has used of the processor."""
    lines = (await redis.command("INFO", "cpu")).decode().splitlines()
    seconds = dict(line.split(":") for line in lines if ":" in line)
    kinds = ("used_cpu_user_main_thread", "used_cpu_sys_main_thread")
    return round(sum(float(seconds[kind]) for kind in kinds) * 1e6)
