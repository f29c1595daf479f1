"""Either side of a migration: its keys, server by server, and what tells whether processes use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from selfhost_transport.errors import StoreUnsuitable
from selfhost_transport.redis_io.address_resolver import Fixed, address_resolver
from selfhost_transport.redis_io.cluster import ClusterNodes
from selfhost_transport.redis_io.pipeline import Pipeline
from selfhost_transport.store.stores import Stores

_TIMEOUT_S: Final = 60.0
_PAGE: Final = 200
_LISTENING_S: Final = 1.5
"""Longer than the pause of a process between two of its duties."""


class Side:
    """One deployment's Redis. Raises StoreUnavailable, StoreUnsuitable."""

    def __init__(self, url: str, prefix: str) -> None:
        self.prefix = prefix
        self.redis = Stores.bare_connection(url, _TIMEOUT_S)
        self._where = address_resolver(url)
        self._servers: dict[str, Pipeline] = {}

    @property
    def is_cluster(self) -> bool:
        """Whether it is a Cluster."""
        return isinstance(self._where, ClusterNodes)

    async def servers(self) -> dict[str, Pipeline]:
        """A way to each server that has keys, by its address."""
        if not self._servers:
            places: dict[str, Any] = {str(self._where): self._where}
            if isinstance(self._where, ClusterNodes):
                addresses = {self._where.at(one.host, one.port) for one in await self._where.owners()}
                places = {str(address): Fixed(address) for address in addresses}
            self._servers = {name: Pipeline(place, _TIMEOUT_S) for name, place in places.items()}
        return self._servers

    async def close(self) -> None:
        """Disconnect."""
        await asyncio.gather(self.redis.close(), *(server.close() for server in self._servers.values()))

    async def pages(self, server: Pipeline, cursor: str = "0") -> AsyncIterator[tuple[str, list[bytes]]]:
        """The deployment's keys on a server, from a cursor of SCAN; each page with the cursor behind it, "0" at the end."""
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in self.prefix)
        while True:
            following, keys = await _ask(server, "SCAN", cursor, "MATCH", f"{pattern}:*", "COUNT", _PAGE)
            cursor = following.decode()
            yield cursor, keys
            if cursor == "0":
                return

    async def run_ids(self) -> str:
        """Changes when a server was restarted: then a cursor means nothing any more."""
        infos = [await _ask(server, "INFO", "server") for server in (await self.servers()).values()]
        lines = [line for info in infos for line in info.decode().splitlines()]
        return ",".join(sorted(line.partition(":")[2] for line in lines if line.startswith("run_id:")))

    async def check_unused(self) -> None:
        """Raises StoreUnsuitable while gateways or workers are connected."""
        for server in (await self.servers()).values():
            for kind in ("CHANNELS", "SHARDCHANNELS"):
                try:
                    channels = await _ask(server, "PUBSUB", kind, f"{self.prefix}:*")
                except StoreUnsuitable:
                    # Redis before 7 has no sharded ones.
                    continue
                if channels:
                    raise self._used()
        duties = [f"{self.prefix}:duty:{name}" for name in ("reap", "retention")]
        for duty in duties:
            # One that is still there may be of a process that has ended.
            await self.redis.command("DEL", duty)
        until = asyncio.get_running_loop().time() + _LISTENING_S
        while asyncio.get_running_loop().time() < until:
            for duty in duties:
                if await self.redis.command("EXISTS", duty):
                    raise self._used()
            await asyncio.sleep(0.1)  # a duty is taken every second, and stays for most of one

    def _used(self) -> StoreUnsuitable:
        return StoreUnsuitable(
            f"gateways or workers are running on {self._where} under the prefix {self.prefix!r}: stop all of them, "
            "then repeat this. Clients wait meanwhile, and resume where they were"
        )


async def _ask(server: Pipeline, *words: str | int) -> Any:
    return await server.start(words, None, _TIMEOUT_S)
