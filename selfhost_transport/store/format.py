"""Which form the data in Redis has: written by the first process of a deployment, checked by every one that starts.

1 had no such key. Its names were joined without escapes: all that has ids as SDKs make them (without `:`, spaces, `%`) is
read as it is. What is no longer found lives for minutes: receipts, by which repeated sends are recognised, and
cancels that came before their turn.
"""

from __future__ import annotations

from typing import Final

from selfhost_transport.errors import StoreUnsuitable
from selfhost_transport.redis_io.connection import RedisConnection

FORMAT: Final = 2
MIGRATING: Final = "migrating"
"""In the place of the number: `selfhost-transport migrate` is not done with this data."""
MOVED: Final = "moved"
"""The same: this data was migrated to another Redis, which is used now."""
_WHY: Final = {
    MIGRATING.encode(): "a migration into it has not ended: run `selfhost-transport migrate` again, which goes on where it was",
    MOVED.encode(): "it was migrated to another Redis: start gateways and workers with the address of that one. To use "
    f"the old data again, without what was written since, set `<prefix>:format` to {FORMAT}",
}


async def check_format(redis: RedisConnection, prefix: str, *, note: bool = True) -> None:
    """Check that this version can read the deployment's data. `note`: write the format down where it is not yet.

    Raises StoreUnsuitable, StoreUnavailable, StoreFull.
    """
    key = f"{prefix}:format"
    stated = await redis.command("GET", key)
    if stated is None:
        if not note:
            return
        await redis.command("SET", key, FORMAT, "NX")
        stated = await redis.command("GET", key)
    if stated in _WHY:
        raise StoreUnsuitable(f"the data under the prefix {prefix!r} cannot be used: {_WHY[stated]}")
    if stated != str(FORMAT).encode():
        raise StoreUnsuitable(
            f"the data under the prefix {prefix!r} has the format {stated.decode(errors='replace')[:16]!r}; this version "
            f"reads format {FORMAT} and older. Start the version of selfhost-transport that wrote it, or give this "
            "deployment a prefix of its own: `prefix` in [redis]. Old and new data do not mix."
        )
    if note:
        # What a migration has copied so far is old from now on.
        await redis.command("DEL", f"{prefix}:migration")
