"""A Redis Cluster: which server has which slot, and calls that go to the right one.

Every key of a session carries its bucket's hash tag, so a script needs one server only. A slot's pipeline asks
where the slot is before each attempt to connect, and leaves a server that answers that it does not have it: so it
follows a fail-over and a slot that was moved. The sockets are shared by all slots of a server (`node_links.py`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redis.crc import key_slot

from selfhost_transport.errors import StoreUnavailable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.databases import LuaScript
from selfhost_transport.redis_io.link import Argument, ask
from selfhost_transport.redis_io.node_links import NodeLinks
from selfhost_transport.redis_io.pipeline import Pipeline

_WITHOUT_KEY = frozenset({"PING", "TIME", "INFO", "SCRIPT", "CLIENT", "CONFIG", "ACL", "COMMAND", "WAIT"})


@dataclass(frozen=True, slots=True)
class Owned:
    """A range of slots, both ends included, and the primary that has it."""

    first: int
    last: int
    host: str
    port: int


class ClusterNodes:
    """The servers of a Cluster, found from those that the address names. Located: any of its primaries."""

    moves: ClassVar[bool] = True
    # A Cluster has no others.
    database: ClassVar[int] = 0

    def __init__(self, seeds: Sequence[Address], *, chosen: str | None = None) -> None:
        self.seeds = tuple(seeds)
        # What the address says of notifications, and whether one goes to the servers of its slot only; else it goes to
        # all of them (Redis before 7).
        self.chosen = chosen
        self.sharded = chosen == "sharded"
        # Those that were known last: the seeds may be gone by then.
        self._known: tuple[Address, ...] = ()
        self._owners: list[Owned] = []
        # Readings are numbered: one that begins after a caller asked serves that caller.
        self._reading = asyncio.Lock()
        self._begun = 0
        self._ended = 0
        self._failure: StoreUnavailable | None = None

    @property
    def timeout_s(self) -> float | None:
        """How long to wait for a reply, where the URL states it."""
        return self.seeds[0].timeout_s

    def __str__(self) -> str:
        return ",".join(f"{seed.host}:{seed.port}" for seed in self.seeds)

    def at(self, host: str, port: int) -> Address:
        """The way into one of the servers."""
        return self.seeds[0].at(host, port)

    async def locate(self) -> Address:
        """Unsharded notifications reach every server, so a subscriber may be anywhere. Raises StoreUnavailable."""
        owned = random.choice(await self.read())
        return self.at(owned.host, owned.port)

    async def read(self) -> list[Owned]:
        """The owners of all slots, from the first server that answers. Raises StoreUnavailable."""
        failed: list[str] = []
        known = random.sample(self._known, len(self._known))
        at = {(server.host, server.port): server for server in (*known, *self.seeds)}
        for server in at.values():
            try:
                found = _owned(await ask(server, "CLUSTER", "SLOTS"), server.host)
            except StoreUnavailable as error:
                failed.append(str(error))
                continue
            if found:
                self._known = tuple({self.at(one.host, one.port): None for one in found})
                return found
            failed.append(f"{server} has no slots")
        raise StoreUnavailable(f"no server of the Cluster {self} can be queried: {'; '.join(failed)}")

    async def owners(self, *, fresh: bool = False) -> list[Owned]:
        """The owners of all slots as they are known; `fresh`: as read from now on, once for all who ask meanwhile.

        Raises StoreUnavailable.
        """
        if self._owners and not fresh:
            return self._owners
        wanted = self._begun + 1
        while self._ended < wanted:
            async with self._reading:
                if self._ended < wanted:
                    await self._read_for_all()
        if self._failure is not None:
            raise self._failure
        return self._owners

    async def _read_for_all(self) -> None:
        self._begun += 1
        began, self._failure = self._begun, None
        try:
            self._owners = await self.read()
        except StoreUnavailable as error:
            self._failure = error
        self._ended = began

    async def owner_of(self, slot: int, *, fresh: bool = False) -> Address:
        """The server that has a slot. Raises StoreUnavailable."""
        found = self.at_slot(await self.owners(fresh=fresh), slot)
        if found is None:
            raise StoreUnavailable(f"no server of the Cluster has slot {slot} of {self}")
        return found

    def at_slot(self, owners: Sequence[Owned], slot: int) -> Address | None:
        """The server that has a slot, by a reading."""
        for owned in owners:
            if owned.first <= slot <= owned.last:
                return self.at(owned.host, owned.port)
        return None


class _Shard:
    """Where the primary is that has a slot. `located` before: the place was left, so the next one is read anew."""

    moves: ClassVar[bool] = True

    def __init__(self, nodes: ClusterNodes, slot: int) -> None:
        self._nodes = nodes
        self._slot = slot
        self._located = False
        self._named: Address | None = None

    def __str__(self) -> str:
        return f"slot {self._slot} of {self._nodes}"

    def refused(self, text: str) -> None:
        """A server names the one that has the slot: it knows before others do. Believed once."""
        self._named = moved_to(text, self._nodes)

    async def locate(self) -> Address:
        fresh, self._located = self._located, True
        named, self._named = self._named, None
        return named or await self._nodes.owner_of(self._slot, fresh=fresh)


def with_guard(keys: Sequence[Argument]) -> Sequence[Argument]:
    """The keys of a script, and one in the same slot that never exists.

    A server whose slot is being moved away refuses a script that names a key it does not have, before it runs. A script
    builds most of its names itself, so without this it could find one half of a session here and the other gone.
    """
    first = keys[0]
    head, closing, _ = (first.decode() if isinstance(first, bytes) else str(first)).partition("}")
    # Without a hash tag a script touches no key but this one, which is guard enough.
    return (*keys, f"{head}{closing}:moving") if closing and "{" in head else keys


def moved_to(text: str, nodes: ClusterNodes) -> Address | None:
    """The server in `MOVED <slot> <host>:<port>`; a server that does not know its own address leaves the host empty."""
    words = text.split(" ")
    host, _, port = words[2].rpartition(":") if len(words) == 3 and words[0] == "MOVED" else ("", "", "")
    return nodes.at(host, int(port)) if host and port.isdecimal() else None


class Shards:
    """Calls to a Cluster: a pipeline for each slot that is used, which are those of the buckets and a few more.

    A slot's pipeline moves with its slot, so the order of calls stays as it is on one server. All pipelines of a server
    share its socket.
    """

    def __init__(self, nodes: ClusterNodes, timeout_s: float, replicas: int = 0) -> None:
        self.nodes = nodes
        self._replicas = replicas
        self.timeout_s = timeout_s
        self._pipelines: dict[int, Pipeline] = {}
        self._scripts: dict[str, LuaScript] = {}
        self.links = NodeLinks(timeout_s, self._scripts)

    @property
    def connected(self) -> bool:
        """Whether there is a way to each slot that was used."""
        return bool(self._pipelines) and all(pipeline.connected for pipeline in self._pipelines.values())

    @property
    def in_flight(self) -> int:
        """Calls without a reply yet."""
        return sum(pipeline.in_flight for pipeline in self._pipelines.values())

    def learn(self, scripts: Sequence[LuaScript]) -> None:
        """Scripts that every server is to have before it is used."""
        self._scripts.update({script.digest: script for script in scripts})

    def start(
        self, arguments: tuple[Argument, ...], script: LuaScript | None, retry_s: float
    ) -> asyncio.Future[Any]:
        """Send a command to the server that has its key."""
        place = 3 if script is not None else 1
        key = "" if arguments[0] in _WITHOUT_KEY else arguments[place]
        return self.pipeline(key).start(arguments, script, retry_s)

    def pipeline(self, key: Argument) -> Pipeline:
        """The way to the server that has a key."""
        slot = key_slot(key if isinstance(key, bytes) else str(key).encode())
        pipeline = self._pipelines.get(slot)
        if pipeline is None:
            pipeline = self._pipelines[slot] = Pipeline(
                _Shard(self.nodes, slot), self.timeout_s, self._scripts, self.links, self._replicas
            )
        return pipeline

    async def close(self) -> None:
        """Refuse what has no reply yet, and disconnect."""
        await asyncio.gather(*(pipeline.close() for pipeline in self._pipelines.values()))
        self.links.close()


def _owned(reply: Any, asked: str) -> list[Owned]:
    """Read the reply to CLUSTER SLOTS; a server that does not know its own address leaves it empty."""
    return [
        Owned(int(first), int(last), (primary[0] or b"").decode() or asked, int(primary[1]))
        for first, last, primary, *_ in reply
    ]
