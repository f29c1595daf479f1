"""Erases a session: everything that Redis holds of it, in short steps that may be begun again after any interruption.

A session that is being erased is unknown from the first step on. Its tombstone, a key that holds a digest of its name, makes
what is still sent to it fail for a day, so that neither a late worker nor a client that comes back makes it anew.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from selfhost_transport.errors import Busy, StoreUnsuitable
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store import scripts
from selfhost_transport.store.ended_turns import GROUP
from selfhost_transport.store.fields import DeadLetterFields, EndedFields
from selfhost_transport.store.keys import Keyspace, session_in
from selfhost_transport.store.options import DAY_MS
from selfhost_transport.store.push import PushStore
from selfhost_transport.store.session_scripts import SessionScripts
from selfhost_transport.store.turn_store import CancelFilter, Scope, TurnStore
from selfhost_transport.turns import headers as h
from selfhost_transport.wire.message import Message

KEPT_OUT_MS: Final = DAY_MS
"""How long nothing can be sent to a session that was erased."""
PER_STEP: Final = 100
"""Publishes, turns or members that one script takes: keeps it short (P9)."""
_ITEMS_PER_STEP: Final = 500
_SCANNED: Final = 1000
_REMOVED_AT_ONCE: Final = 100
_MOST_TRIES: Final = 10
"""How often turns are cancelled, and an interrupted erasure is finished."""

ON_THE_WIRE: Final = ConfigDict(alias_generator=to_camel, populate_by_name=True)
"""How what was erased is written over HTTP."""

audit = logging.getLogger("selfhost_transport.audit")


@dataclass(frozen=True, slots=True)
class ErasedSession:
    """What was erased. `receipts_expire`: receipts of sends are left, for want of the right to scan; they expire within a day."""

    __pydantic_config__: ClassVar[ConfigDict] = ON_THE_WIRE

    session: str
    turns_cancelled: int
    publishes: int
    letters: int
    receipts_expire: bool


class SessionErasure:
    """Erases sessions of one deployment. Raises StoreUnavailable."""

    def __init__(self, redis: RedisConnection, keys: Keyspace, turns: TurnStore, push: PushStore) -> None:
        self._redis = redis
        self._keys = keys
        self._turns = turns
        self._push = push
        self._scripts = SessionScripts(redis, keys)

    async def erase(self, session: str, by: str, *, kept_out_ms: int = KEPT_OUT_MS) -> ErasedSession:
        """Cancel what runs, without asking hooks, and erase everything; may be repeated. `kept_out_ms` 0: its name is free then.

        From the beginning on the session takes nothing in. Raises Busy where turns stay open although they were cancelled.
        """
        cancelled = await self._begin(session, by)
        publishes = 0
        while (taken := await self.step(session)) is not None:
            publishes += taken
        letters = await self._take_letters(session)
        is_swept = await self._sweep(session)
        await self._scripts.run("erase_end", session, kept_out_ms=kept_out_ms, retry_s=self._redis.read_s)
        # The name of what was erased is not in the log.
        digest = hashlib.sha1(session.encode(), usedforsecurity=False).hexdigest()
        audit.warning("session.erased by=%s sha1=%s publishes=%d turns=%d", by, digest, publishes, cancelled)
        return ErasedSession(session, cancelled, publishes, letters, receipts_expire=not is_swept)

    async def _begin(self, session: str, by: str) -> int:
        """Make the session unknown. Returns how many turns had to be cancelled."""
        cancelled = 0
        for _ in range(_MOST_TRIES):
            reply = await self._scripts.run(
                "erase_begin", session, kept_out_ms=KEPT_OUT_MS, retry_s=self._redis.read_s
            )
            if reply[0] == b"begun":
                return cancelled
            if reply[0] == b"busy":
                cancelled += await self._cancel(session, by)
            else:
                while await self.step(session) is not None:
                    pass
        raise Busy("turns of this session are still open: begin again")

    async def _cancel(self, session: str, by: str) -> int:
        extras = h.make_extras({h.CANCEL_ALL: "true"})
        message = Message(name=h.AI_CANCEL, client_id=by, extras=extras)
        reply = await self._turns.cancels.cancel(
            session, CancelFilter(Scope.ALL), message, early=False, force=True
        )
        return len(reply.matched)

    async def step(self, session: str) -> int | None:
        """One short script. Returns how many publishes it took; None when nothing is left."""
        taken: int | None = await self._scripts.run(
            "erase_step", session, limit=PER_STEP, kept_out_ms=KEPT_OUT_MS, retry_s=self._redis.read_s
        )
        return taken

    # What stands in lists of all sessions

    async def _take_letters(self, session: str) -> int:
        base = self._keys.base_of(session)
        taken = await self.take_items(f"{base}dead", DeadLetterFields.SESSION, session)
        for exporter in await self._redis.command("HKEYS", f"{base}exporters") or []:
            name = exporter.decode()
            taken += await self.take_items(f"{base}ended:{name}", EndedFields.SESSION, session, GROUP)
            taken += await self.take_items(f"{base}undelivered:{name}", EndedFields.SESSION, session)
        return taken + await self._take_pushes(session)

    async def take_items(self, stream: str, field: str, value: str, group: str = "") -> int:
        """Take the items of a stream out whose field has a value. Returns how many."""
        cursor, total = b"-", 0
        while cursor:
            call = scripts.call(
                "erase_items", stream=stream, field=field, value=value, cursor=cursor, limit=_ITEMS_PER_STEP, group=group
            )  # fmt: skip
            taken, cursor = await self._redis.call(*call)
            total += taken
        return total

    async def _take_pushes(self, session: str) -> int:
        queued = [
            one.delivery_id async for one in self._push.queued() if one.content.get("session") == session
        ]
        for delivery in queued:
            await self._push.drop(delivery)
        buried = [one.letter_id for one in await self._push.buried() if one.content.get("session") == session]
        for letter in buried:
            await self._push.drop_buried(letter)
        return len(queued) + len(buried)

    # What no list names

    async def _sweep(self, session: str) -> bool:
        """Remove keys that only a walk through all keys finds: receipts of sends. False where the user may not walk."""
        base = self._keys.base_of(session)
        try:
            async for names in self.keys_matching(base, f"*{_escaped(session)}"):
                found = [name for name in names if session_in(name[len(base) :]) == session.encode()]
                for at in range(0, len(found), _REMOVED_AT_ONCE):
                    await self._redis.command("UNLINK", *found[at : at + _REMOVED_AT_ONCE])
        except StoreUnsuitable:
            return False
        return True

    async def keys_matching(self, base: str, pattern: str) -> AsyncIterator[Sequence[bytes]]:
        """Keys of a bucket, some at a time; one may come twice. For operators only (P9). Raises StoreUnsuitable."""
        cursor = b"0"
        while True:
            cursor, names = await self._redis.command(
                "SCAN", cursor, "MATCH", f"{_escaped(base)}{pattern}", "COUNT", _SCANNED, node_key=base
            )
            yield names
            if int(cursor) == 0:
                return


def _escaped(text: str) -> str:
    """The text as a glob pattern that matches itself."""
    return re.sub(r"([\\*?\[\]])", r"\\\1", text)
