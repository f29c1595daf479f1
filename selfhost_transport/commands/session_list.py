"""Which sessions there are: for `inspect` without a session."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from selfhost_transport.commands.ended import WIRE
from selfhost_transport.store.turn_store import TurnStore
from selfhost_transport.wire.serial import Position

_SCAN_COUNT = 500


@dataclass(frozen=True, slots=True)
class SessionLine:
    """A session. `open`: turns without a terminal; `queued`: those of them that wait; `last_ms`: its newest entry."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    session: str
    open: int
    queued: int
    last_ms: int


async def sessions_beginning(turns: TurnStore, prefix: str) -> AsyncIterator[SessionLine]:
    """Walks the keys of Redis: for operators only (P9)."""
    for base in turns.keys.bases():
        async for name in keys_beginning(turns, base, f"{base}s:", prefix):
            yield await session_line(turns, name)


async def session_line(turns: TurnStore, name: str) -> SessionLine:
    """One session."""
    base = turns.keys.base_of(name)
    head, active, waiting = await asyncio.gather(
        turns.redis.command("GET", f"{base}p:{name}"),
        turns.redis.command("HLEN", f"{base}a:{name}"),
        turns.redis.command("LLEN", f"{base}w:{name}"),
    )
    last = Position.parse_id(head.decode()).ms if head else 0
    return SessionLine(name, int(active), int(waiting), last)


async def keys_beginning(turns: TurnStore, base: str, start: str, prefix: str) -> AsyncIterator[str]:
    """What follows `start` in the names of keys of a bucket, where it begins with `prefix`; each once."""
    seen: set[bytes] = set()
    cursor = b"0"
    while True:
        cursor, names = await turns.redis.command(
            "SCAN", cursor, "MATCH", _escaped(start + prefix) + "*", "COUNT", _SCAN_COUNT, node_key=base
        )
        for name in set(names) - seen:
            yield name.decode()[len(start) :]
        seen.update(names)
        if int(cursor) == 0:
            return


def _escaped(text: str) -> str:
    """The text as a glob pattern that matches itself."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)
