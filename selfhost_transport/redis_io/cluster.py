"""A Redis Cluster: which server has which slot, and calls that go to the right one.

Every key of a session carries its bucket's hash tag, so a script needs one server only. The connection for a slot asks
where the slot is before each attempt to connect, and is dropped when a server answers that it does not have it: so it
follows a fail-over and a slot that was moved.
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

    def __init__(self, seeds: Sequence[Address]) -> None:
        self.seeds = tuple(seeds)
        # Those that were known last: the seeds may be gone by then.
        self._known: tuple[Address, ...] = ()

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
        """Notifications reach every server, so a subscriber may be anywhere. Raises StoreUnavailable."""
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


class _Shard:
    """Where the primary is that has a slot."""

    moves: ClassVar[bool] = True

    def __init__(self, nodes: ClusterNodes, slot: int) -> None:
        self._nodes = nodes
        self._slot = slot

    def __str__(self) -> str:
        return f"slot {self._slot} of {self._nodes}"

    async def locate(self) -> Address:
        for owned in await self._nodes.read():
            if owned.first <= self._slot <= owned.last:
                return self._nodes.at(owned.host, owned.port)
        raise StoreUnavailable(f"no server of the Cluster has {self}")


class Shards:
    """Calls to a Cluster: a pipeline for each slot that is used, which are those of the buckets and a few more.

    A slot's pipeline moves with its slot, so the order of calls stays as it is on one server.
    """

    def __init__(self, nodes: ClusterNodes, timeout_s: float) -> None:
        self._nodes = nodes
        self._timeout_s = timeout_s
        self._pipelines: dict[int, Pipeline] = {}
        self._scripts: dict[str, LuaScript] = {}

    @property
    def connected(self) -> bool:
        """Whether there is a socket for each slot that was used."""
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
                _Shard(self._nodes, slot), self._timeout_s, self._scripts
            )
        return pipeline

    async def close(self) -> None:
        """Refuse what has no reply yet, and disconnect."""
        await asyncio.gather(*(pipeline.close() for pipeline in self._pipelines.values()))


def _owned(reply: Any, asked: str) -> list[Owned]:
    """Read the reply to CLUSTER SLOTS; a server that does not know its own address leaves it empty."""
    return [
        Owned(int(first), int(last), (primary[0] or b"").decode() or asked, int(primary[1]))
        for first, last, primary, *_ in reply
    ]
