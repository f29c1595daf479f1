"""Many small reads that change nothing, sent again and again: as a look at all buckets. What does not change is packed once.

In a Cluster they go around the pipelines of the slots: one write to each server, one callback per reply. Nothing is held
for a slot that moves: the next look finds it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import hiredis
from redis.crc import key_slot

from selfhost_transport.errors import StoreUnavailable
from selfhost_transport.redis_io.address import Address
from selfhost_transport.redis_io.calls import ALONE, ReplyCallback
from selfhost_transport.redis_io.cluster import Owned, Shards
from selfhost_transport.redis_io.link import Argument, pack
from selfhost_transport.redis_io.node_links import SlotLink
from selfhost_transport.redis_io.pipeline import Pipeline


class Batch:
    """Commands with their key in the second place. Made by `RedisConnection.batch`."""

    def __init__(self, way: Pipeline | Shards, commands: Sequence[tuple[Argument, ...]]) -> None:
        self._packed = [pack(command) for command in commands]
        self._way = way
        self._cluster = (
            _ClusterBatch(way, self._packed, [_slot(command[1]) for command in commands])
            if isinstance(way, Shards)
            else None
        )

    async def ask(self, within_s: float) -> list[Any]:
        """The replies in order, an error in the place of one that failed or that has not come in time."""
        if not self._packed:
            return []
        if self._cluster is not None:
            return await self._cluster.ask(within_s)
        assert isinstance(self._way, Pipeline)
        return await _ask_pipeline(self._way, self._packed, within_s)


def _slot(key: Argument) -> int:
    return key_slot(key if isinstance(key, bytes) else str(key).encode())


async def _ask_pipeline(way: Pipeline, packed: Sequence[bytes], within_s: float) -> list[Any]:
    """One callback for all costs a third of a future for each."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    replies: list[Any] = [None] * len(packed)
    left = len(packed)

    def receive(at: int, reply: Any, error: BaseException | None) -> None:
        nonlocal left
        replies[at] = reply if error is None else error
        left -= 1
        if not left and not done.done():
            done.set_result(None)

    for at, command in enumerate(packed):
        way.send(None, None, ALONE, command, ReplyCallback(partial(receive, at)), within_s)
    await done
    return replies


class _Round:
    """Replies of one server to one asking."""

    __slots__ = ("count", "done", "replies", "since")

    def __init__(self, count: int) -> None:
        self.count = count
        self.replies: list[Any] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.since = time.monotonic()


class _Server:
    """Its share of a server's socket; the replies come in the order of the rounds."""

    def __init__(self) -> None:
        self._rounds: deque[_Round] = deque()
        self.link: SlotLink | None = None

    def ask(self, packed: bytes, count: int) -> _Round:
        assert self.link is not None
        self._rounds.append(asked := _Round(count))
        self.link.write_together(packed, count)
        return asked

    def silent_s(self) -> float:
        """For how long the first question is without all of its answers."""
        return time.monotonic() - self._rounds[0].since if self._rounds else 0.0

    def on_reply(self, reply: Any) -> None:
        asked = self._rounds[0]
        asked.replies.append(reply)
        if len(asked.replies) == asked.count:
            self._rounds.popleft()
            if not asked.done.done():
                asked.done.set_result(None)

    def on_lost(self, error: Exception | None) -> None:
        self.link = None
        rounds, self._rounds = self._rounds, deque()
        for asked in rounds:
            if not asked.done.done():
                asked.done.set_result(None)


class _ClusterBatch:
    def __init__(self, shards: Shards, packed: Sequence[bytes], slots: Sequence[int]) -> None:
        self._shards = shards
        self._packed = packed
        self._slots = slots
        self._servers: dict[Address, _Server] = {}
        # By server: which commands, and all of them joined; for this reading of the slots.
        self._groups: dict[Address, tuple[list[int], bytes]] = {}
        self._grouped_for: Sequence[Owned] | None = None
        self._fresh = False

    async def ask(self, within_s: float) -> list[Any]:
        owners = await self._shards.nodes.owners(fresh=self._fresh)
        self._fresh = False
        if owners is not self._grouped_for:
            self._group(owners)
        found: list[Any] = [StoreUnavailable("the server did not answer in time")] * len(self._packed)
        groups = self._groups.items()
        await asyncio.gather(*(self._ask(found, at, *group, within_s) for at, group in groups))
        # A slot that moved, or a server that is gone: look where it is now.
        self._fresh = any(isinstance(reply, StoreUnavailable | hiredis.ReplyError) for reply in found)
        return found

    async def _ask(
        self, found: list[Any], address: Address, which: list[int], packed: bytes, within_s: float
    ) -> None:
        server = self._servers.setdefault(address, _Server())
        try:
            async with asyncio.timeout(within_s):
                if server.link is None:
                    server.link = await self._shards.links.open(
                        address, server.on_reply, server.on_lost, within_s
                    )
                if server.silent_s() > self._shards.timeout_s:
                    server.link.abort()
                    return
                asked = server.ask(packed, len(which))
                await asked.done
        except (TimeoutError, StoreUnavailable):
            return
        for at, reply in zip(which, asked.replies, strict=False):
            found[at] = reply

    def _group(self, owners: Sequence[Owned]) -> None:
        groups: dict[Address, list[int]] = {}
        for at, slot in enumerate(self._slots):
            address = self._shards.nodes.at_slot(owners, slot)
            if address is not None:
                groups.setdefault(address, []).append(at)
        self._groups = {
            address: (which, b"".join(self._packed[at] for at in which)) for address, which in groups.items()
        }
        self._grouped_for = owners
        for address in self._servers.keys() - groups.keys():
            if (link := self._servers.pop(address).link) is not None:
                link.close()
