"""`python -m tests.redis_io.fail_over`: kills primaries under load and counts which acknowledged entries are gone.

`--where sentinel|cluster --durability none|everysec|wait:1 --times 20 --behind-ms 0`. Each time a new deployment of real
servers, 16 writers, and kill -9 of a primary. `--behind-ms`: its replica is cut off for so long before the kill, as one
that is slow or far away is behind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import redis

from selfhost_transport.errors import TransportError
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.store.history import Query
from selfhost_transport.store.keys import Keyspace
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.wire.message import Message
from tests.processes import wait_until
from tests.redis_io.clusters import Clustered, clustered
from tests.redis_io.sentinels import Watched, port_of, watched

WRITERS: Final = 16
_LOAD_S: Final = 0.5
KEYS: Final = Keyspace("fail-over", WRITERS)


@dataclass(slots=True)
class FailOver:
    """What one kill did. `acknowledged`: entry -> when. `window_s`: how long before the kill the oldest loss was acknowledged."""

    acknowledged: dict[str, float] = field(default_factory=dict)
    killed_at: float = 0.0
    lost: set[str] = field(default_factory=set)

    @property
    def window_s(self) -> float:
        """0 where nothing was lost."""
        return max((self.killed_at - self.acknowledged[entry] for entry in self.lost), default=0.0)

    @property
    def pause_s(self) -> float:
        """From the kill until writers were served again, those of the killed server too."""
        first: dict[str, float] = {}
        for entry, at in self.acknowledged.items():
            if at > self.killed_at:
                first.setdefault(entry.partition(".")[0], at)
        return max(first.values(), default=self.killed_at) - self.killed_at


@dataclass(slots=True)
class _Servers:
    """`replica`: a process id; `primary`: the port of the one to be killed; `ports`: of all servers."""

    url: str
    deployment: Clustered | Watched
    replica: int
    primary: int
    ports: list[int]

    def cut_replica_off(self) -> None:
        """It receives nothing more; what was on its way it still takes."""
        os.kill(self.replica, signal.SIGSTOP)
        with redis.Redis(port=self.primary) as server:
            server.client_kill_filter(_type="replica")

    async def kill(self) -> None:
        """kill -9, and wait until the replica has taken over."""
        if isinstance(self.deployment, Clustered):
            await self.deployment.kill_first()
        else:
            await self.deployment.kill_primary()


@asynccontextmanager
async def _deployment(where: str, folder: Path) -> AsyncIterator[_Servers]:
    if where == "cluster":
        with clustered(folder) as cluster:
            await wait_until(cluster.replicate, 60, "a replica that knows its primary")
            await wait_until(cluster.ready, 60, "servers that know each other")
            yield _Servers(cluster.url, cluster, cluster.processes[-1].pid, cluster.ports[0], cluster.ports)
    else:
        with watched(folder) as sentinels:
            await wait_until(sentinels.ready, 60, "Sentinels that know each other")
            primary = sentinels.primary()
            [replica] = [server for server in sentinels.servers if port_of(server) != primary]
            yield _Servers(
                sentinels.url,
                sentinels,
                replica.pid,
                primary,
                [port_of(server) for server in sentinels.servers],
            )


async def fail_over(where: str, durability: str, folder: Path, *, behind_s: float = 0.0) -> FailOver:
    """One fail-over of a deployment of its own."""
    async with _deployment(where, folder) as servers:
        if durability == "everysec":
            for port in servers.ports:
                with redis.Redis(port=port) as server:
                    server.config_set("appendonly", "yes")
        replicas = int(durability.partition(":")[2] or 0)
        connection = RedisConnection(servers.url, timeout_s=10, replicas=replicas)
        reader = RedisConnection(servers.url, timeout_s=20)
        try:
            return await _under_load(
                servers, SessionStore(connection, KEYS), SessionStore(reader, KEYS), behind_s
            )
        finally:
            await asyncio.gather(connection.close(), reader.close())


async def _under_load(
    servers: _Servers, store: SessionStore, reader: SessionStore, behind_s: float
) -> FailOver:
    found, over = FailOver(), asyncio.Event()
    # Two thirds of them in a Cluster get no acknowledgement with `wait:1`: only the first primary has a replica.
    writers = [asyncio.create_task(_write(store, number, found, over)) for number in range(WRITERS)]
    await asyncio.sleep(_LOAD_S)
    if behind_s:
        servers.cut_replica_off()
        await asyncio.sleep(behind_s)  # of writing
    found.killed_at = time.monotonic()
    if behind_s:
        # After the kill, which asks the replica whether it has taken over, and blocks until it answers.
        threading.Timer(0.1, os.kill, (servers.replica, signal.SIGCONT)).start()
    await servers.kill()
    await asyncio.sleep(_LOAD_S)
    over.set()
    await asyncio.wait(writers, timeout=15)
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    there = await asyncio.gather(*(_read(reader, number) for number in range(WRITERS)))
    found.lost = found.acknowledged.keys() - {entry for entries in there for entry in entries}
    return found


async def _write(store: SessionStore, number: int, found: FailOver, over: asyncio.Event) -> None:
    count = 0
    while not over.is_set():
        count += 1
        entry = f"{number}.{count}"
        try:
            await store.publish(f"session {number}", [Message(name="note", data=entry)])
        except TransportError:
            await asyncio.sleep(0.02)  # until there is a primary again
        else:
            found.acknowledged[entry] = time.monotonic()


async def _read(store: SessionStore, number: int) -> list[str]:
    page = await store.history.page(f"session {number}", Query(limit=1_000_000))
    return [str(message.data) for message in page.messages]


async def _times(where: str, durability: str, times: int, behind_s: float) -> list[FailOver]:
    done: list[FailOver] = []
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            done.append(await fail_over(where, durability, Path(folder), behind_s=behind_s))
    return done


def _row(where: str, durability: str, behind_ms: int, done: list[FailOver]) -> str:
    windows = [one.window_s * 1000 for one in done]
    cells = (
        where,
        durability,
        f"{behind_ms} ms" if behind_ms else "no",
        len(done),
        f"{sum(len(one.acknowledged) for one in done):,}",
        f"{sum(len(one.lost) for one in done):,}",
        f"{median(windows):.0f} / {max(windows):.0f} ms",
        f"{median(one.pause_s for one in done):.1f} s",
    )
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    """Prints a row: where, durability, replica behind, fail-overs, acknowledged, lost, window (median / longest), pause."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--where", choices=("sentinel", "cluster"), default="sentinel")
    options.add_argument("--durability", default="wait:1")
    options.add_argument("--times", type=int, default=20)
    options.add_argument("--behind-ms", type=int, default=0)
    given = options.parse_args()
    done = asyncio.run(_times(given.where, given.durability, given.times, given.behind_ms / 1000))
    print(_row(given.where, given.durability, given.behind_ms, done), flush=True)
    return int(given.durability.startswith("wait") and any(one.lost for one in done))


if __name__ == "__main__":
    sys.exit(main())
