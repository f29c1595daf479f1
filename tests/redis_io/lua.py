"""Scripts of a test's own."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1

import pytest
import redis


@dataclass(frozen=True)
class Lua:
    source: str
    reads: bool = False
    names_all_keys: bool = True

    @property
    def digest(self) -> str:
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()


def run_forever(url: str) -> None:
    """Keep a server busy until the script is killed."""
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ResponseError):
        client.eval("while true do end", 0)


def is_busy(admin: redis.Redis) -> bool:
    """Whether a script has run for longer than the server's limit."""
    try:
        admin.ping()
    except redis.ResponseError:
        return True
    return False
