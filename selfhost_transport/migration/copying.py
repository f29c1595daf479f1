"""Copies keys with their times to live. Everything may be repeated: what is there is replaced by the same."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from selfhost_transport.migration.places import (
    KeyMove,
    KeyPlace,
    bucket_of,
    place_in_bucket,
    place_outside,
)
from selfhost_transport.migration.servers import Side
from selfhost_transport.store.fields import ConnectionFields, DeadLetterFields, EndedFields, QueueFields
from selfhost_transport.store.held_buckets import FEW_BUCKETS
from selfhost_transport.store.names import part

_ITEMS: Final = 500
_HELD_MS: Final = 24 * 3_600_000
# All streams that are split name the session alike.
[_SESSION] = {
    str(field.value).encode()
    for field in (QueueFields.SESSION, DeadLetterFields.SESSION, EndedFields.SESSION)
}


class Copier:
    """From `old` buckets at the source to `new` ones at the target. Raises StoreUnavailable, StoreFull, StoreUnsuitable."""

    def __init__(self, source: Side, target: Side, old: int, new: int) -> None:
        self._source = source
        self._target = target
        self._old = old
        self._new = new
        self._name = re.compile(rb"%s:(?:\{b(\d+)\}:)?(.*)\Z" % re.escape(source.prefix.encode()), re.DOTALL)

    def read_name(self, key: bytes) -> tuple[int | None, bytes, KeyPlace]:
        """A key's bucket, the rest of its name, and where it goes."""
        found = self._name.match(key)
        assert found is not None, key
        bucket, rest = None if found[1] is None else int(found[1]), found[2]
        other = self._new != self._old
        if bucket is None:
            return None, rest, place_outside(rest, other_buckets=other)
        return (
            bucket,
            rest,
            place_in_bucket(rest, bucket, self._new) if other else KeyPlace(KeyMove.WHOLE, bucket),
        )

    def new_name(self, bucket: int | None, rest: bytes) -> bytes:
        """A key's name at the target."""
        tag = b"" if bucket is None else b"{b%d}:" % bucket
        return self._target.prefix.encode() + b":" + tag + rest

    async def copy(self, keys: Sequence[bytes]) -> Counter[str]:
        """Copy some keys; how many there were of each kind."""
        done: Counter[str] = Counter()
        whole: list[tuple[bytes, bytes]] = []
        for key in keys:
            bucket, rest, place = self.read_name(key)
            match place.way:
                case KeyMove.WHOLE:
                    whole.append((key, self.new_name(None if bucket is None else place.bucket, rest)))
                case KeyMove.NOT:
                    done["left behind"] += 1
                case _:
                    assert bucket is not None
                    await self._split(place.way, key, bucket, rest)
                    done["split"] += 1
        await asyncio.gather(*(self._copy_whole(key, name) for key, name in whole))
        done["copied"] += len(whole)
        return done

    async def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Keys that went as a whole and are not at the target, or shorter there, although the source still has them."""
        pairs = []
        for key in keys:
            bucket, rest, place = self.read_name(key)
            if place.way is KeyMove.WHOLE:
                pairs.append((key, self.new_name(None if bucket is None else place.bucket, rest), rest))
        lost = await asyncio.gather(*(self._is_missing(*pair) for pair in pairs))
        return [key for (key, _, _), gone in zip(pairs, lost, strict=True) if gone]

    async def _is_missing(self, key: bytes, name: bytes, rest: bytes) -> bool:
        length = "XLEN" if rest[:2] in (b"l:", b"h:") else "EXISTS"
        here, there = await asyncio.gather(
            self._source.redis.command(length, key), self._target.redis.command(length, name)
        )
        # It may have expired between the two.
        return bool(here != there and await self._source.redis.command("EXISTS", key))

    async def _copy_whole(self, key: bytes, name: bytes) -> None:
        source = self._source.redis
        value, ttl = await asyncio.gather(source.command("DUMP", key), source.command("PTTL", key))
        if value is None or ttl == -2:
            await self._target.redis.command("DEL", name)
            return
        await self._target.redis.command("RESTORE", name, max(ttl, 0), value, "REPLACE")

    async def _split(self, way: KeyMove, key: bytes, bucket: int, rest: bytes) -> None:
        into = range(bucket, self._new, self._old)
        if way is KeyMove.CONNECTION:
            await self._copy_connection(key, bucket, rest)
            return
        await asyncio.gather(*(self._target.redis.command("DEL", self.new_name(one, rest)) for one in into))
        match way:
            case KeyMove.STREAM:
                await self._split_stream(key, rest)
            case KeyMove.EVERYWHERE:
                fields = await self._source.redis.command("HGETALL", key)
                await asyncio.gather(
                    *(self._target.redis.command("HSET", self.new_name(one, rest), *fields) for one in into)
                )
            case KeyMove.COPIES:
                await asyncio.gather(*(self._copy_whole(key, self.new_name(one, rest)) for one in into))
            case _:
                await self._split_scores(key, rest, pairs=way is KeyMove.PAIRS)

    async def _split_stream(self, key: bytes, rest: bytes) -> None:
        """Items keep their ids: no two old buckets become one."""
        after = b"-"
        while items := await self._source.redis.command("XRANGE", key, after, "+", "COUNT", _ITEMS):
            for item, fields in items:
                session = dict(zip(fields[::2], fields[1::2], strict=True))[_SESSION]
                name = self.new_name(bucket_of(session, self._new), rest)
                await self._target.redis.command("XADD", name, item, *fields)
            after = b"(" + items[-1][0]

    async def _split_scores(self, key: bytes, rest: bytes, *, pairs: bool) -> None:
        """`pairs`: the session is the second part of the member."""
        found = await self._source.redis.command("ZRANGE", key, 0, -1, "WITHSCORES")
        for at in range(0, len(found), 2):
            session = found[at].partition(b" ")[2] if pairs else found[at]
            name = self.new_name(bucket_of(session, self._new), rest)
            await self._target.redis.command("ZADD", name, found[at + 1], found[at])

    async def _copy_connection(self, key: bytes, bucket: int, rest: bytes) -> None:
        """Its members leave in time, or are taken over by the socket that resumes it, wherever their sessions are now."""
        fields = await self._source.redis.command("HGETALL", key)
        sessions, about = _read_connection(dict(zip(fields[::2], fields[1::2], strict=True)))
        connection, node = rest.partition(b":")[2], about.get(ConnectionFields.NODE.encode(), b"")
        base = f"{self._source.prefix}:{{b{bucket}}}:"
        expiry, gone = await asyncio.gather(
            self._source.redis.command("ZSCORE", f"{base}nodes", node),
            self._source.redis.command("ZSCORE", f"{base}gone", connection),
        )
        by_bucket: dict[int, list[bytes]] = {}
        for session in sessions:
            by_bucket.setdefault(bucket_of(session, self._new), []).append(session)
        for at, held in by_bucket.items():
            words: list[Any] = [word for field in about.items() for word in field]
            marks = [word for session in held for word in (ConnectionFields.SESSION.encode() + session, b"1")]
            send = self._target.redis.command
            await send("HSET", self.new_name(at, rest), *words, *marks)
            await send("SADD", self.new_name(at, b"d:" + node), connection)
            if expiry is not None:
                await send("ZADD", self.new_name(at, b"nodes"), expiry, node)
            if gone is not None:
                await send("ZADD", self.new_name(at, b"gone"), gone, connection)
            if self._new > FEW_BUCKETS:
                note = self.new_name(None, b"held:" + part(connection.decode()).encode())
                await send("HSET", note, at, 1)
                await send("PEXPIRE", note, _HELD_MS)


def _read_connection(fields: dict[bytes, bytes]) -> tuple[list[bytes], dict[bytes, bytes]]:
    """The sessions of a connection, and the other fields."""
    mark = ConnectionFields.SESSION.encode()
    sessions = [field.removeprefix(mark) for field in fields if field.startswith(mark)]
    return sessions, {field: value for field, value in fields.items() if not field.startswith(mark)}
