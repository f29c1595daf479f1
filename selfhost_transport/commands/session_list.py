"""`inspect` without a session: which sessions there are."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from selfhost_transport.commands.stores import opened_stores
from selfhost_transport.settings import Settings
from selfhost_transport.store.turn_store import TurnStore
from selfhost_transport.wire.serial import Position

_SCAN_COUNT = 500


@dataclass(frozen=True, slots=True)
class SessionLine:
    """A session. `open`: turns without a terminal; `queued`: those of them that wait; `last_ms`: its newest entry."""

    session: str
    open: int
    queued: int
    last_ms: int


def run_list(settings: Settings, prefix: str, *, limit: int, as_json: bool) -> None:
    """Print the sessions whose names begin with `prefix`, those with the newest entries first."""
    found = asyncio.run(_list(settings, prefix))
    found.sort(key=lambda line: line.last_ms, reverse=True)
    if as_json:
        print(json.dumps([dataclasses.asdict(line) for line in found[:limit]], indent=2))
        return
    for line in found[:limit]:
        last = (
            datetime.fromtimestamp(line.last_ms / 1000, UTC).isoformat(" ", "seconds")
            if line.last_ms
            else "-"
        )
        print(f"{last}  open turns {line.open}  waiting {line.queued}  {line.session}")
    more = f", the {limit} newest shown" if len(found) > limit else ""
    print(f"{len(found)} session(s) under the prefix {settings.redis.prefix!r}{more}")


async def _list(settings: Settings, prefix: str) -> list[SessionLine]:
    async with opened_stores(settings) as stores:
        turns = stores.turns
        return [line async for line in _sessions(turns, prefix)]


async def _sessions(turns: TurnStore, prefix: str) -> AsyncIterator[SessionLine]:
    """Walks the keys of Redis: for operators only (P9)."""
    for base in turns.keys.bases():
        async for name in keys_beginning(turns, base, f"{base}s:", prefix):
            head, active, waiting = await asyncio.gather(
                turns.redis.command("GET", f"{base}p:{name}"),
                turns.redis.command("HLEN", f"{base}a:{name}"),
                turns.redis.command("LLEN", f"{base}w:{name}"),
            )
            last = Position.parse_id(head.decode()).ms if head else 0
            yield SessionLine(name, int(active), int(waiting), last)


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
