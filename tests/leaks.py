"""What a test leaves behind in Redis: every key must have a TTL or a declared owner (P9)."""

from __future__ import annotations

import re
from collections.abc import Iterable

import redis

from selfhost_transport.store.keys import OWNED


def unowned_keys(client: redis.Redis, prefix: str) -> list[str]:
    """Keys under the prefix that never expire and belong to no family in `OWNED`."""
    bucket = re.compile(re.escape(prefix) + r":\{b\d+\}:")
    found = []
    for key in keys_under(client, prefix):
        match = bucket.match(key)
        # The deployment's own mark lives as long as its data.
        owned = key in (f"{prefix}:format", f"{prefix}:deployment") or (
            match is not None and key[match.end() :].startswith(OWNED)
        )
        if not owned and client.ttl(key) == -1:
            found.append(key)
    return found


def keys_under(client: redis.Redis, prefix: str) -> list[str]:
    """All keys that begin with the prefix."""
    keys: Iterable[str] = client.scan_iter(f"{prefix}*", count=1000)
    return sorted(keys)
