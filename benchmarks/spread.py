"""What spreading the same appends over N servers costs Redis: `python -m benchmarks.spread 3 6 12`, about 20 s for each number.

One server; N servers that know nothing of each other, which is the least that N processes can cost; a Cluster of N. In each
case the same appends on the ticks of a worker, each heard by one subscriber. CPU of all servers together per append, with and
without what they use while nothing happens.

First also one server with the load that each of N has (`texts / N`): does an append get dearer because there are more servers?
`ALIGNED=1`: all texts of a server are due on the same ticks, so that it is woken less often.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import cast

import redis
from redis.crc import key_slot

from agent_worker.output.flush_timer import TICK_S
from benchmarks.redis_cluster import RedisCluster
from benchmarks.rig import TOKEN, Cpu, OpenTurn, Rig
from selfhost_transport.redis_io.connection import RedisConnection
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.redis_io.subscriber import Subscriber
from selfhost_transport.store.keys import Keyspace, bucket_of
from selfhost_transport.store.session_store import SessionStore
from selfhost_transport.store.turn_store import TurnStore

TEXTS = int(os.environ.get("TEXTS", "150"))
PERIOD_S = float(os.environ.get("PERIOD_MS", "40")) / 1000
ALIGNED = os.environ.get("ALIGNED", "") not in ("", "0")
SECONDS = 4.0
_IDLE_S = 2.0
_APART_BUCKETS = 16


@dataclass(slots=True)
class Servers:
    """Where to write: one rig, or one for each server that stands alone."""

    title: str
    rigs: list[Rig]
    pids: list[int]
    urls: list[str]
    all_urls: list[str]


def _rig(url: str, buckets: int) -> Rig:
    connection, keys = RedisConnection(url), Keyspace("spread", buckets)
    # The server is only for those who measure it.
    server = cast(EmbeddedRedis, None)
    return Rig(server, connection, keys, SessionStore(connection, keys), TurnStore(connection, keys))


@asynccontextmanager
async def apart(count: int) -> AsyncIterator[Servers]:
    """Servers that know nothing of each other."""
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(EmbeddedRedis()) for _ in range(count)]
        rigs = [_rig(server.url, _APART_BUCKETS) for server in servers]
        for one in rigs:
            stack.push_async_callback(one.redis.close)
        urls = [server.url for server in servers]
        title = f"{count} apart" if count > 1 else "one server"
        yield Servers(title, rigs, [server.pid for server in servers], urls, urls)


@asynccontextmanager
async def together(count: int) -> AsyncIterator[Servers]:
    """A Cluster."""
    async with RedisCluster(count) as cluster:
        url = f"{cluster.url}?notifications=sharded"
        one = _rig(url, 1024)
        try:
            yield Servers(f"Cluster of {count}", [one], cluster.pids, [url], cluster.urls)
        finally:
            await one.redis.close()


class _Spent:
    def __init__(self, servers: Servers) -> None:
        self._clocks = [Cpu(pid) for pid in servers.pids]

    def us(self) -> float:
        return sum(clock.spent_us() for clock in self._clocks)


def _counts(servers: Servers) -> Counter[str]:
    """Reads and writes of sockets, and commands, of all servers together."""
    found = Counter[str]()
    for url in servers.all_urls:
        with redis.Redis.from_url(url) as admin:
            stats = cast(dict[str, int], admin.info("stats"))
        found.update({name: stats[f"total_{name}_processed"] for name in ("commands", "reads", "writes")})
    return found


async def _texts(servers: Servers, stack: AsyncExitStack, count: int) -> list[tuple[TurnStore, OpenTurn]]:
    """In the order of their servers with ALIGNED, else mixed."""
    subscribers = [Subscriber(url) for url in servers.urls]
    for one in subscribers:
        stack.push_async_callback(one.close)
    texts = []
    for number in range(count):
        session = f"session-{number}"
        # At random, as in a Cluster: a tick has appends for many servers.
        at = bucket_of(session, 16384) * len(servers.rigs) // 16384
        rig = servers.rigs[at]
        texts.append((rig.turns, await rig.open_text(session)))
        await subscribers[at].subscribe(rig.keys.channel(session), lambda entry: None)
    return sorted(texts, key=_place) if ALIGNED else texts


def _place(text: tuple[TurnStore, OpenTurn]) -> int:
    """Where its server stands among the others."""
    turns, turn = text
    if turns.keys.buckets == _APART_BUCKETS:
        return bucket_of(turn.lease.session, 16384)
    return key_slot(turns.keys.base_of(turn.lease.session).encode())


async def _write(texts: list[tuple[TurnStore, OpenTurn]]) -> int:
    """Each text on the tick that its place in the period has; how many appends."""
    loop, ticks = asyncio.get_running_loop(), round(PERIOD_S / TICK_S)
    began, count, replies = loop.time(), 0, list[asyncio.Future[object]]()
    due = [
        texts[len(texts) * tick // ticks : len(texts) * (tick + 1) // ticks]
        if ALIGNED
        else texts[tick::ticks]
        for tick in range(ticks)
    ]
    for tick in range(round(SECONDS / TICK_S)):
        await asyncio.sleep(max(0.0, began + tick * TICK_S - loop.time()))
        for turns, turn in due[tick % ticks]:
            replies.append(turns.append(turn.lease, turn.text, TOKEN))
            count += 1
    await asyncio.gather(*replies)
    return count


async def measure(servers: Servers, count: int = TEXTS) -> float:
    """Prints a row; us per append less those of idleness."""
    async with AsyncExitStack() as stack:
        texts = await _texts(servers, stack, count)
        await _write(texts)
        spent, began = _Spent(servers), time.monotonic()
        await asyncio.sleep(_IDLE_S)
        idle = spent.us() / (time.monotonic() - began)
        before = _counts(servers)
        spent.us()
        own, began = Cpu(os.getpid()), time.monotonic()
        count = await _write(texts)
        used, wall = spent.us(), time.monotonic() - began
        after = _counts(servers)
        each = ", ".join(f"{(after[name] - before[name]) / count:.2f} {name}" for name in after)
        busy = (used - idle * wall) / count
        print(
            f"{servers.title}, {len(texts)} texts: {used / count:.1f} us of Redis per append, {busy:.1f} less idle "
            f"({idle / 1e4:.2f} % of a core); writer and subscriber {own.spent_us() / count:.1f}; "
            f"{count / wall:,.0f} appends/s; {each} per append",
            flush=True,
        )
        return busy


async def _compare(counts: list[int]) -> None:
    async with apart(1) as one:
        base = await measure(one)
    for count in counts:
        async with apart(1) as one:
            share = await measure(one, max(1, TEXTS // count))
        for servers in (apart(count), together(count)):
            async with servers as found:
                busy = await measure(found)
                print(
                    f"    {busy / base:.2f} times one server, {busy / share:.2f} times one with such a load"
                )


if __name__ == "__main__":
    asyncio.run(_compare([int(word) for word in sys.argv[1:]] or [3, 6, 12]))
