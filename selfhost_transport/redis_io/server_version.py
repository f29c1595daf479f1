"""Which Redis is new enough, and the error for one that is not."""

from __future__ import annotations

import re
from collections.abc import Mapping

from selfhost_transport.errors import StoreUnsuitable

# Scripts rely on what came with 6.2: GETEX, ZRANGESTORE, XAUTOCLAIM, exact XTRIM MINID.
MINIMUM = (6, 2)


def parse_version(text: str) -> tuple[int, int]:
    """Major and minor of `"7.0.15"` or of what `redis-server --version` prints; (0, 0) if there is none."""
    match = re.search(r"v=(\d+)\.(\d+)", text) or re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def check_server(info: Mapping[str, object]) -> tuple[int, int]:
    """The version in a reply to INFO (Valkey states the Redis version it equals).

    Raises StoreUnsuitable if it is older than `MINIMUM`, or if the reply has no version.
    """
    stated = str(info.get("redis_version", "unknown"))
    version = parse_version(stated)
    if version < MINIMUM:
        needed = ".".join(map(str, MINIMUM))
        raise StoreUnsuitable(
            f"Redis {stated} is too old: version {needed} or newer is needed, or any Valkey. "
            "Upgrade that server, or give the address of a newer one with --redis."
        )
    return version
