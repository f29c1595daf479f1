"""Which scripts of Redis took long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from selfhost_transport.redis_io.connection import RedisConnection

LONGEST_SCRIPT_US = 10_000


# On a machine that others use, a script may be interrupted for longer than it runs: it is long when it always is, and
# when it is longer than this one, which takes about 3 ms on an idle machine, in the same time.
TRIES = 6


KNOWN_SCRIPT = "for _ = 1, 8000 do redis.call('GET', KEYS[1]) end"


async def slow_scripts(redis: RedisConnection, work: Callable[[], Awaitable[object]]) -> list[int]:
    """Microseconds of the scripts that took too long."""
    before = (await redis.command("CONFIG", "GET", "slowlog-log-slower-than"))[1]
    await redis.command("CONFIG", "SET", "slowlog-log-slower-than", 500)
    await redis.command("CONFIG", "SET", "slowlog-max-len", 10_000)
    await redis.command("SLOWLOG", "RESET")
    try:
        for _ in range(5):
            await redis.command("EVAL", KNOWN_SCRIPT, 1, "none")
        await work()
        found = await redis.command("SLOWLOG", "GET", 10_000)
    finally:
        await redis.command("CONFIG", "SET", "slowlog-log-slower-than", before)
        await redis.command("CONFIG", "SET", "slowlog-max-len", 128)
        await redis.command("SLOWLOG", "RESET")
    known = sorted(entry[2] for entry in found if entry[3][0].upper() == b"EVAL")
    longest = max(LONGEST_SCRIPT_US, 3 * known[len(known) // 2])
    return [entry[2] for entry in found if entry[3][0].upper() == b"EVALSHA" and entry[2] > longest]
