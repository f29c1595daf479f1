"""The connection to Redis that a process has: to one server, to whichever Sentinel names, or to a Cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from redis.crc import key_slot

from selfhost_transport.redis_io.address_resolver import Sentinels, address_resolver
from selfhost_transport.redis_io.batches import Batch
from selfhost_transport.redis_io.cluster import ClusterNodes, Shards, with_guard
from selfhost_transport.redis_io.databases import Database, LuaScript
from selfhost_transport.redis_io.link import Argument
from selfhost_transport.redis_io.pipeline import Pipeline
from selfhost_transport.redis_io.prepared_call import PreparedCall
from selfhost_transport.redis_io.switches import Switches

_SLOTS: Final = 16384
_READS = frozenset(
    {
        "EXISTS", "GET", "GETRANGE", "HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "INFO", "LINDEX", "LLEN",
        "LRANGE", "PING", "PTTL", "SCAN", "STRLEN", "TIME", "XINFO", "XLEN", "XPENDING", "XRANGE", "XREVRANGE", "ZCARD",
        "ZCOUNT", "ZRANGE", "ZRANGEBYSCORE", "ZSCORE",
    }
)  # fmt: skip
"""Commands that may be repeated whatever their first outcome."""


class RedisConnection:
    """A pipelining, reconnecting connection. `call` and `command` may be used from any number of tasks.

    Replies are as Redis sends them: bytes, int, list, None. Errors: StoreUnavailable when Redis cannot be
    reached, or the connection was lost before the reply; StoreFull at `maxmemory`; StoreUnsuitable for anything
    the server refuses to do. In a Cluster a script goes where its first key is, a command where its second word is.
    `timeout_s`: the longest time of a call that has none of its own, and of a server's silence; the URL's
    `socket_timeout` goes before it. `read_s`: the same for reads, which are repeated after a lost connection.
    `replicas`: how many have to have what a script wrote before its reply is passed on; without them StoreUnavailable.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 5.0, read_s: float | None = None, replicas: int = 0
    ) -> None:
        where = address_resolver(url)
        timeout_s = where.timeout_s or timeout_s
        self.read_s = read_s or timeout_s
        self._way: Pipeline | Shards
        self._switches: Switches | None = None
        if isinstance(where, ClusterNodes):
            self._way = Shards(where, timeout_s, replicas)
        else:
            self._way = Pipeline(where, timeout_s, replicas=replicas)
            if isinstance(where, Sentinels):
                self._switches = Switches(where, self._way.leave)
        self._start = self._start_first if self._switches is not None else self._way.start
        in_cluster = isinstance(where, ClusterNodes)
        sharded = isinstance(where, ClusterNodes) and where.sharded
        self.database = Database(where.database, sharded=sharded, counted=sharded or not in_cluster)
        self._in_cluster = isinstance(where, ClusterNodes)

    def _start_first(
        self, arguments: tuple[Argument, ...], script: LuaScript | None, retry_s: float
    ) -> asyncio.Future[Any]:
        """The first call: there is a loop to listen on now."""
        assert self._switches is not None
        self._switches.start()
        self._start = self._way.start
        return self._start(arguments, script, retry_s)

    @property
    def connected(self) -> bool:
        """Whether a socket is connected; in a Cluster, to each shard in use."""
        return self._way.connected

    def place_of(self, key: str) -> float | None:
        """Where the slot of a key stands among all slots, from 0 to 1; None where there is one server.

        A server mostly has slots that stand side by side.
        """
        return key_slot(key.encode()) / _SLOTS if self._in_cluster else None

    @property
    def in_flight(self) -> int:
        """Calls without a reply yet."""
        return self._way.in_flight

    def call(
        self,
        script: LuaScript,
        keys: Sequence[Argument],
        arguments: Sequence[Argument],
        *,
        retry_s: float = 0.0,
    ) -> asyncio.Future[Any]:
        """Run a script. With `retry_s`, it is sent again after a lost connection: only for calls that may run twice."""
        if script.reads:
            retry_s = retry_s or self.read_s
        script = self.database.script(script)
        if self._in_cluster and not script.names_all_keys:
            keys = with_guard(keys)
        return self._start(("EVALSHA", script.digest, len(keys), *keys, *arguments), script, retry_s)

    def prepare(
        self,
        script: LuaScript,
        keys: Sequence[Argument],
        first: Sequence[Argument],
        *,
        misplaced: bytes | None = None,
        several: LuaScript | None = None,
    ) -> PreparedCall:
        """Calls of one script with these keys and first arguments, each with three arguments more.

        `misplaced`: the script's reply to a call whose predecessor was not carried out; see `Pipeline.send`.
        `several`: the script that makes several such calls at once, for those that leave together.
        """
        way = self._way.pipeline(keys[0]) if isinstance(self._way, Shards) else self._way
        guard = with_guard(keys)[len(keys) :] if self._in_cluster and not script.names_all_keys else ()
        if several is not None:
            several = self.database.script(several)
        return PreparedCall(way, self.database.script(script), keys, guard, first, misplaced, several)

    def command(
        self, *arguments: Argument, retry_s: float = 0.0, node_key: Argument | None = None
    ) -> asyncio.Future[Any]:
        """Run one command. `node_key`: a key whose server is meant, where the command itself has none."""
        if arguments[0] in _READS:
            retry_s = retry_s or self.read_s
        if node_key is not None and isinstance(self._way, Shards):
            return self._way.pipeline(node_key).start(arguments, None, retry_s)
        return self._start(arguments, None, retry_s)

    async def notify(self, channel: str, payload: str) -> None:
        """Publish. Raises StoreUnavailable."""
        name = self.database.channel(channel)
        await self._start(("SPUBLISH" if self.database.sharded else "PUBLISH", name, payload), None, 0.0)

    def batch(self, commands: Sequence[tuple[Argument, ...]]) -> Batch:
        """Commands that change nothing, to be asked together again and again."""
        return Batch(self._way, commands)

    def keep_loaded(self, scripts: Sequence[LuaScript]) -> None:
        """Give these to every server that is connected to from now on, before anything else.

        Without it a server gets a script when it is first called, and calls of other scripts may overtake that one.
        """
        self._way.learn(self.database.scripts(scripts))

    async def info(self) -> dict[str, str]:
        """The server's INFO, as text by field; of one server of a Cluster."""
        text: bytes = await self.command("INFO")
        pairs = (line.partition(":") for line in text.decode().splitlines())
        return {name: value for name, colon, value in pairs if colon}

    async def close(self) -> None:
        """Refuse what has no reply yet, and disconnect."""
        if self._switches is not None:
            await self._switches.close()
        await self._way.close()
