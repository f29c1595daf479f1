"""One migration: check both sides, copy, compare, then close the source and open the target."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from selfhost_transport.errors import InvalidArgument, NotFound, StoreUnsuitable
from selfhost_transport.migration.copying import Copier
from selfhost_transport.migration.servers import Side
from selfhost_transport.store.format import FORMAT, MIGRATING, MOVED

_SHOWN: Final = 5

Progress = Callable[[str, int], None]
"""Called with what is being done ("copied", "compared"), and how many keys that are."""


@dataclass(slots=True)
class Migration:
    """`old`, `new`: buckets of both sides. Repeating one that was interrupted goes on where it was."""

    source: Side
    target: Side
    old: int
    new: int
    progress: Progress
    done: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Raises InvalidArgument, NotFound, StoreUnsuitable, StoreUnavailable, StoreFull."""
        if self.new % self.old:
            raise InvalidArgument(
                f"the deployment has {self.old} buckets; a larger number must be a multiple of it: "
                f"{self.new} is not, so two of its buckets would have to become one"
            )
        await self._check_source()
        mark = await self._begin()
        copier = Copier(self.source, self.target, self.old, self.new)
        await self._copy(copier, mark)
        await self._compare(copier)
        await self._finish(mark)

    async def _check_source(self) -> None:
        stated = await self.source.redis.command("GET", f"{self.source.prefix}:format")
        if stated is None:
            raise NotFound(f"there is no deployment under the prefix {self.source.prefix!r} at the source")
        if stated != str(FORMAT).encode():
            raise StoreUnsuitable(
                f"the source has the format {stated.decode()!r}; this version reads {FORMAT}"
            )
        await self.source.check_unused()

    async def _begin(self) -> str:
        """The target's record of what was copied. A start of the source's deployment since then made it worthless."""
        record, place = f"{self.target.prefix}:migration", f"{self.source.prefix}:migration"
        stated = await self.target.redis.command("GET", f"{self.target.prefix}:format")
        if stated not in (None, MIGRATING.encode()):
            raise StoreUnsuitable(
                f"the target has a deployment under the prefix {self.target.prefix!r} already: choose another, or remove its keys"
            )
        await self.target.redis.command("SET", f"{self.target.prefix}:format", MIGRATING)
        known = await self.source.redis.command("GET", place)
        servers = await self.source.run_ids()
        about = f"{self.old}>{self.new} {servers}"
        if known is None or await self.target.redis.command("HMGET", record, "mark", "about") != [
            known,
            about.encode(),
        ]:
            known = secrets.token_hex(8).encode()
            await self.target.redis.command("DEL", record)
            await self.target.redis.command("HSET", record, "mark", known, "about", about)
            await self.source.redis.command("SET", place, known)
        return record

    async def _copy(self, copier: Copier, record: str) -> None:
        for name, server in (await self.source.servers()).items():
            at = await self.target.redis.command("HGET", record, f"at {name}")
            if at == b"end":
                continue
            async for cursor, keys in self.source.pages(server, "0" if at is None else at.decode()):
                self.done += await copier.copy(keys)
                await self.target.redis.command(
                    "HSET", record, f"at {name}", cursor if cursor != "0" else "end"
                )
                self.progress("copied", self.done["copied"] + self.done["split"])

    async def _compare(self, copier: Copier) -> None:
        for server in (await self.source.servers()).values():
            async for _, keys in self.source.pages(server):
                lost = await copier.missing(keys)
                if lost:
                    names = ", ".join(key.decode(errors="replace") for key in lost[:_SHOWN])
                    await self.target.redis.command("DEL", f"{self.target.prefix}:migration")
                    raise StoreUnsuitable(
                        f"keys of the source are missing at the target, {names}: was it used meanwhile? Repeat the command"
                    )
                self.done["compared"] += len(keys)
                self.progress("compared", self.done["compared"])

    async def _finish(self, record: str) -> None:
        await self.source.check_unused()
        # The source first: from now on only one of them can be started.
        await self.source.redis.command("SET", f"{self.source.prefix}:format", MOVED)
        await self.target.redis.command("HSET", f"{self.target.prefix}:deployment", "buckets", self.new)
        await self.target.redis.command("DEL", record)
        await self.target.redis.command("SET", f"{self.target.prefix}:format", FORMAT)
