"""What a deployment keeps its data in, and what goes wrong there: one Redis, or a Cluster that changes its servers."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast

import redis

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.machine import free_port
from tests.processes import wait_until
from tests.redis_io.clusters import clustered
from tests.redis_io.elastic import Elastic
from tests.redis_io.sentinels import port_of

Fault = Callable[[], Awaitable[None]]
# No server takes over for one that a busy machine holds up: that would lose what was acknowledged.
_TIMEOUT_MS: Final = 20_000


class Servers(Protocol):
    """`faults`: each breaks one thing, and mends it before it returns."""

    @property
    def url(self) -> str:
        """What the deployment is given."""

    @property
    def faults(self) -> Sequence[Fault]:
        """What can go wrong here."""


@dataclass(slots=True)
class OneServer:
    """A Redis that keeps its data over restarts."""

    redis: EmbeddedRedis
    chance: random.Random

    @property
    def url(self) -> str:
        """See Servers."""
        return self.redis.url

    @property
    def faults(self) -> Sequence[Fault]:
        """See Servers."""
        return (self.restart_redis, self.drop_subscriptions)

    async def restart_redis(self) -> None:
        """Redis ends and comes back with its append-only file."""
        await asyncio.to_thread(self.redis.stop)
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        await asyncio.to_thread(self.redis.start)

    async def drop_subscriptions(self) -> None:
        """Redis drops those who listen, again and again, while others go on writing."""
        await _drop_subscriptions([port_of(self.redis)], self.chance)


@dataclass(slots=True)
class ManyServers:
    """A Cluster of three primaries and a replica, changed with `redis-cli --cluster` while it is used."""

    elastic: Elastic
    chance: random.Random

    @property
    def url(self) -> str:
        """See Servers."""
        return self.elastic.cluster.url

    @property
    def faults(self) -> Sequence[Fault]:
        """See Servers."""
        return (self.reshard, self.add_and_remove, self.fail_over, self.drop_subscriptions)

    async def reshard(self) -> None:
        """Hundreds of slots move from one server to another."""
        source, target = self.chance.sample(await asyncio.to_thread(self.elastic.primaries), 2)
        await asyncio.to_thread(self.elastic.reshard, source, target, self.chance.randrange(100, 800))

    async def add_and_remove(self) -> None:
        """A server joins and gets its share of the slots; then it gives them back and leaves."""
        port = await asyncio.to_thread(self.elastic.add)
        await asyncio.to_thread(self.elastic.rebalance)
        await asyncio.to_thread(self.elastic.remove, port)

    async def fail_over(self) -> None:
        """The replica takes over in agreement with its primary, which is its replica then."""
        [replica] = {*self.elastic.cluster.ports} - {*await asyncio.to_thread(self.elastic.primaries)}
        await wait_until(lambda: _link_is_up(replica), 60, "a replica that has its primary's data")
        until = time.monotonic() + 60
        while replica not in await asyncio.to_thread(self.elastic.primaries):
            assert time.monotonic() < until, "the replica has not become a primary"
            # Servers give up a planned fail-over that they cannot agree on within five seconds.
            with redis.Redis(port=replica) as server:
                server.execute_command("CLUSTER", "FAILOVER")
            with contextlib.suppress(AssertionError):
                await wait_until(lambda: replica in self.elastic.primaries(), 7, "the replica as a primary")
        await asyncio.to_thread(self.elastic.agree)

    async def drop_subscriptions(self) -> None:
        """Every server drops those who listen, again and again, while others go on writing."""
        await _drop_subscriptions(self.elastic.cluster.ports, self.chance)


def _link_is_up(port: int) -> bool:
    with redis.Redis(port=port) as server:
        return cast(dict[str, Any], server.info("replication")).get("master_link_status") == "up"


async def _drop_subscriptions(ports: Sequence[int], chance: random.Random) -> None:
    for _ in range(6):
        for port in ports:
            with contextlib.suppress(redis.ConnectionError), redis.Redis(port=port) as server:
                server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.sleep(chance.uniform(0.05, 0.25))


@asynccontextmanager
async def one_server(folder: Path, chance: random.Random) -> AsyncIterator[OneServer]:
    """A Redis with a folder and a port of its own."""
    with EmbeddedRedis(folder / "redis", free_port()) as server:
        yield OneServer(server, chance)


@asynccontextmanager
async def many_servers(folder: Path, chance: random.Random) -> AsyncIterator[ManyServers]:
    """A Cluster that serves."""
    with clustered(folder, timeout_ms=_TIMEOUT_MS) as cluster:
        await wait_until(cluster.replicate, 60, "a replica that knows its primary")
        await wait_until(cluster.ready, 60, "servers that know each other")
        yield ManyServers(Elastic(cluster, folder, _TIMEOUT_MS), chance)
