"""Everything that a Redis holds, to look for something in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import redis


def mentions(client: redis.Redis, prefix: str, text: str) -> list[str]:
    """Keys under a prefix with a text in their names, fields, members, items or values; `client` reads bytes."""
    sought = text.encode()
    keys = client.scan_iter(match=f"{prefix}:*", count=1000)
    found = [key for key in keys if any(sought in part for part in (key, *_content(client, key)))]
    return sorted(key.decode(errors="replace") for key in found)


def _content(client: Any, key: bytes) -> Iterator[bytes]:
    kind = client.type(key)
    match kind:
        case b"string":
            yield client.get(key) or b""
        case b"hash":
            yield from _flat(client.hgetall(key))
        case b"set":
            yield from client.smembers(key)
        case b"zset":
            yield from client.zrange(key, 0, -1)
        case b"list":
            yield from client.lrange(key, 0, -1)
        case b"stream":
            for _, fields in client.xrange(key):
                yield from _flat(fields)
        case b"none":
            pass
        case _:
            raise AssertionError(f"a key of a kind that is not looked into: {key!r} {kind!r}")


def _flat(fields: Mapping[bytes, bytes]) -> Iterator[bytes]:
    for name, value in fields.items():
        yield name
        yield value
