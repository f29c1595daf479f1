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


# Appends a number if it follows on the last one, as a chunk of a message does.
NEXT = Lua(
    "if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 'gap' end "
    "redis.call('RPUSH', KEYS[1], ARGV[1]) return 'ok'"
)
# The same for several lists; an error of one ends none of the others.
SEVERAL_NEXT = Lua(
    "local function once(key, number) "
    "if redis.call('LLEN', key) ~= tonumber(number) then return 'gap' end "
    "redis.call('RPUSH', key, number) return 'ok' end "
    "local replies, failed = {}, false "
    "for at = 1, #ARGV / 3 do "
    "local done, reply = pcall(once, KEYS[at], ARGV[3 * at - 2]) "
    "if not done then reply, failed = {err = reply}, true end "
    "replies[at] = reply end "
    "if failed then return replies end return table.concat(replies, ' ')"
)


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
