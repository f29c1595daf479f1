"""A Redis Cluster of real servers on this machine."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Any, Self, cast

import redis

from selfhost_transport.redis_io.embedded import EmbeddedRedis

_SLOTS = 16384
_BUS = 10_000
_HIGHEST = 65535
_FORMED_WITHIN_S = 30.0


class RedisCluster:
    """An asynchronous context: so many primaries, with the slots given out evenly. Raises TimeoutError."""

    def __init__(self, nodes: int) -> None:
        self._servers = [
            EmbeddedRedis(port=port, options={"cluster-enabled": "yes"}) for port in _free_ports(nodes)
        ]
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        """The address that gateways and workers are given."""
        return f"redis+cluster://{self._servers[0].url.removeprefix('redis://').removesuffix('/0')}"

    @property
    def urls(self) -> list[str]:
        """The address of each server."""
        return [server.url for server in self._servers]

    @property
    def pids(self) -> list[int]:
        """The process of each server."""
        return [server.pid for server in self._servers]

    async def __aenter__(self) -> Self:
        try:
            for server in self._servers:
                await self._stack.enter_async_context(server)
            await asyncio.to_thread(self._form)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _form(self) -> None:
        with ExitStack() as stack:
            nodes = [stack.enter_context(redis.Redis.from_url(url)) for url in self.urls]
            first_port = self.urls[0].rpartition(":")[2].partition("/")[0]
            for number, node in enumerate(nodes):
                begin, end = (at * _SLOTS // len(nodes) for at in (number, number + 1))
                node.execute_command("CLUSTER ADDSLOTS", *range(begin, end))
                node.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                node.execute_command("CLUSTER MEET", "127.0.0.1", first_port)
            deadline = time.monotonic() + _FORMED_WITHIN_S
            while not all(_knows(node, len(nodes)) for node in nodes):
                if time.monotonic() > deadline:
                    raise TimeoutError("the servers of the Cluster do not know each other")
                time.sleep(0.05)


def _knows(node: Any, count: int) -> bool:
    info = cast(dict[str, str], node.execute_command("CLUSTER INFO"))
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == count


def _free_ports(count: int) -> list[int]:
    """Ports whose companion for the Cluster's own messages, 10,000 higher, is free as well."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < count:
            probe, bus = (held.enter_context(socket.socket()) for _ in range(2))
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port + _BUS > _HIGHEST:
                continue
            try:
                bus.bind(("127.0.0.1", port + _BUS))
            except OSError:
                continue
            ports.append(port)
    return ports
