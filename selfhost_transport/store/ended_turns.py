"""Turns that ended, queued for each exporter until it has dealt with them: at least once, none forgotten (HYD-7).

An exporter is a name. Its stream begins when it is opened, outlives every process that works on it, and is bounded: a
turn beyond the limit drops the oldest one, which is counted.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
from dataclasses import dataclass
from typing import Final

from selfhost_transport.errors import InvalidArgument, NotFound
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.fields import EndedFields as Item
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.names import part
from selfhost_transport.turns.status import TurnStatus
from selfhost_transport.wire.serial import Position

GROUP: Final = "exporter"
_PAGE: Final = 500
# A process that had nothing to do for this long leaves no trace.
_FORGET_MS: Final = 3_600_000
_BURIED_MS: Final = 30 * 86_400_000
_ITEM: Final = re.compile(r"\d+-\d+")
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Ended:
    """A turn that ended, as it is queued. `item_id` names it within its bucket.

    `owner` is '' when anonymous. `first` is the position of its input, `last` of its terminal; `open` is that of the first
    input of its session that was still being worked on then, else `last`. `delivery` counts from 1 how often it was
    given out.
    """

    bucket: int
    item_id: str
    session: str
    epoch: str
    turn_id: str
    status: TurnStatus
    agent: str
    owner: str
    first: Position
    last: Position
    open: Position
    delivery: int
    event: str = "ended"
    # The same whenever it is given out, also after it was given up.
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class LeasedElsewhere:
    """Another process has the turn that is next; its lease ends in `left_ms`, unless it is renewed."""

    left_ms: int


@dataclass(frozen=True, slots=True)
class Undelivered:
    """An item that was given up, and why. `letter_id` names it: `<bucket>/<item>`."""

    letter_id: str
    ended: Ended
    reason: str


class EndedTurns:
    """The turns that wait for one exporter. Raises InvalidArgument for its name; methods raise StoreUnavailable."""

    def __init__(
        self, redis: RedisConnection, keys: Keyspace, exporter: str, process: str | None = None
    ) -> None:
        if _NAME.fullmatch(exporter) is None:
            raise InvalidArgument("an exporter's name has 1 to 64 letters, digits, `_`, `.` or `-`")
        self._redis = redis
        self._keys = keys
        self.exporter = exporter
        # Names this process among those that work for the exporter.
        self.process = process or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    async def open(self, limit: int) -> None:
        """Have turns queued that end from now on, at most `limit` per bucket. Raises StoreFull."""
        calls = [
            self._redis.call(
                *scripts.call(
                    "export_open", exporters=f"{base}exporters", ended=self._key(base), exporter=self.exporter,
                    limit=limit, group=GROUP, idle_ms=_FORGET_MS,
                )
            )
            for base in self._bases
        ]  # fmt: skip
        await asyncio.gather(*calls)

    async def take(self, bucket: int, lease_ms: int) -> Ended | LeasedElsewhere | None:
        """The next turn of a bucket, in the order in which they ended; None without any.

        LeasedElsewhere while another process has the one given out last: no turn is exported before one that ended earlier. One
        that this process was given and that is not done is given again.
        """
        ended = self._key(self._keys.base(bucket))
        reply = await self._redis.call(
            *scripts.call("export_take", ended=ended, group=GROUP, process=self.process, lease_ms=lease_ms)
        )
        if isinstance(reply, int):
            return LeasedElsewhere(reply)
        return None if reply is None else _ended(bucket, reply)

    async def renew(self, ended: Ended) -> bool:
        """Keep a turn that is being exported from being given to another process. False where it was already."""
        key = self._key(self._keys.base(ended.bucket))
        call = scripts.call("export_renew", ended=key, group=GROUP, process=self.process, item=ended.item_id)
        return bool(await self._redis.call(*call))

    async def done(self, ended: Ended) -> None:
        """The turn was exported."""
        key = self._key(self._keys.base(ended.bucket))
        await self._redis.call(*scripts.call("export_done", ended=key, group=GROUP, item=ended.item_id))

    async def bury(self, ended: Ended, reason: str) -> None:
        """Give up delivering an item; it is kept for 30 days, and no longer given out."""
        base = self._keys.base(ended.bucket)
        call = scripts.call(
            "export_bury", ended=self._key(base), buried=self._buried_key(base), group=GROUP,
            item=ended.item_id, reason=reason, keep_ms=_BURIED_MS, event_id=ended.event_id,
        )  # fmt: skip
        await self._redis.call(*call)

    async def queued(self, session: str) -> list[Ended]:
        """What waits of one session, oldest first."""
        bucket = bucket_of(session, self._keys.buckets)
        found: list[Ended] = []
        after = b"-"
        while items := await self._redis.command(
            "XRANGE", self._key(self._keys.base(bucket)), after, "+", "COUNT", _PAGE
        ):
            read = [_ended(bucket, [item, b"0", *fields]) for item, fields in items]
            found += [one for one in read if one.session == session]
            after = b"(" + items[-1][0]
        return found

    async def buried(self) -> list[Undelivered]:
        """What was given up, oldest first."""
        found: list[Undelivered] = []
        for bucket, base in enumerate(self._bases):
            for item in await self._redis.command("XRANGE", self._buried_key(base), "-", "+") or []:
                pairs = dict(zip(item[1][::2], item[1][1::2], strict=True))
                reason = pairs.pop(Item.ERROR.encode(), b"").decode()
                rest = [part for pair in pairs.items() for part in pair]
                letter = _ended(bucket, [item[0], b"0", *rest])
                found.append(Undelivered(f"{bucket}/{letter.item_id}", letter, reason))
        return sorted(found, key=lambda one: one.ended.last)

    async def requeue(self, letter_id: str) -> None:
        """Deliver something that was given up again. Raises NotFound."""
        bucket, _, item = letter_id.partition("/")
        known = bucket.isdecimal() and int(bucket) < len(self._bases) and _ITEM.fullmatch(item) is not None
        if not known or not await self._requeue(self._bases[int(bucket)], item):
            raise NotFound(f"{self.exporter} has given up nothing with the id {letter_id[:64]!r}")

    async def _requeue(self, base: str, item: str) -> bool:
        call = scripts.call(
            "export_requeue", exporters=f"{base}exporters", ended=self._key(base), buried=self._buried_key(base),
            exporter=self.exporter, item=item, channel=f"{base}ended:{part(self.exporter)}",
        )  # fmt: skip
        return bool(await self._redis.call(*call))

    async def waiting(self) -> int:
        """Turns not exported yet, those at work included."""
        return sum(
            await asyncio.gather(*(self._redis.command("XLEN", self._key(base)) for base in self._bases))
        )

    async def dropped(self) -> int:
        """Turns that were lost to this exporter because too many waited."""
        calls = [self._redis.command("HGET", f"{base}dropped", self.exporter) for base in self._bases]
        return sum(int(count or 0) for count in await asyncio.gather(*calls))

    async def forget(self) -> bool:
        """End the exporter, with what waits for it. False when there is none of this name."""
        calls = [
            self._redis.call(
                *scripts.call(
                    "export_forget", exporters=f"{base}exporters", ended=self._key(base),
                    dropped=f"{base}dropped", exporter=self.exporter,
                )
            )
            for base in self._bases
        ]  # fmt: skip
        return any(await asyncio.gather(*calls))

    @property
    def _bases(self) -> list[str]:
        return self._keys.bases()

    def _buried_key(self, base: str) -> str:
        return f"{base}undelivered:{self.exporter}"

    def _key(self, base: str) -> str:
        return f"{base}ended:{self.exporter}"


def _ended(bucket: int, reply: list[bytes]) -> Ended:
    fields = {name.decode(): value.decode() for name, value in zip(reply[2::2], reply[3::2], strict=True)}
    return Ended(
        bucket=bucket,
        item_id=reply[0].decode(),
        delivery=int(reply[1]),
        session=fields[Item.SESSION],
        epoch=fields[Item.EPOCH],
        turn_id=fields[Item.TURN],
        status=TurnStatus(fields[Item.STATUS]),
        agent=fields[Item.AGENT],
        owner=fields[Item.OWNER],
        first=Position.parse_id(fields[Item.FIRST]),
        last=Position.parse_id(fields[Item.LAST]),
        open=Position.parse_id(fields[Item.OPEN]),
        event=fields.get(Item.EVENT, "ended"),
        event_id=fields.get(Item.EVENT_ID, f"{bucket}-{reply[0].decode()}"),
    )
