"""A Redis Cluster of real processes on free ports: three primaries, and a replica of the first."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from selfhost_transport.redis_io.embedded import find_server
from tests.processes import wait_until

_PRIMARIES = 3
_SLOTS = 16384
_TIMEOUT_MS = 1000
_SETTLED_WITHIN_S = 30


@dataclass
class Clustered:
    """The servers. `url` is what a deployment is given: it need not name all of them."""

    ports: list[int]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.ports[0]},127.0.0.1:{self.ports[1]}"

    def form(self) -> None:
        """Give out the slots and introduce the servers to each other."""
        share = _SLOTS // _PRIMARIES + 1
        for number, port in enumerate(self.ports):
            with redis.Redis(port=port) as server:
                if number < _PRIMARIES:
                    last = min(_SLOTS, (number + 1) * share)
                    server.execute_command("CLUSTER ADDSLOTS", *range(number * share, last))
                server.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                server.execute_command("CLUSTER MEET", "127.0.0.1", self.ports[0])

    def replicate(self) -> bool:
        """Make the last server a replica of the first, once it knows it."""
        with redis.Redis(port=self.ports[0]) as first, redis.Redis(port=self.ports[-1]) as last:
            try:
                last.execute_command("CLUSTER REPLICATE", first.execute_command("CLUSTER MYID"))
            except redis.ResponseError:
                return False
        return True

    def ready(self) -> bool:
        """Whether all servers see the Cluster whole, and the replica has the data."""
        for port in self.ports:
            with redis.Redis(port=port) as server:
                state = cast(dict[str, str], server.execute_command("CLUSTER INFO"))
            if (state["cluster_state"], int(state["cluster_known_nodes"])) != ("ok", len(self.ports)):
                return False
        return self._replication().get("master_link_status") == "up"

    def owner_of(self, slot: int) -> int:
        """The port of the server that says that it has the slot."""
        found = next((port for port in self.ports if self._owner_by(port, slot) == port), None)
        assert found is not None, f"no server has slot {slot}"
        return found

    @staticmethod
    def _owner_by(port: int, slot: int) -> int | None:
        """The port of the server that has the slot as the server at `port` knows it."""
        with redis.Redis(port=port) as server:
            for first, last, primary, *_ in cast(list[Any], server.execute_command("CLUSTER SLOTS")):
                if first <= slot <= last:
                    return int(primary[1])
        return None

    def move(self, slot: int, target: int) -> None:
        """Move a slot to another server, as `redis-cli --cluster reshard` does."""
        move = Move.begin(self, slot, target)
        while move.step():
            pass
        move.finish()
        # The next move of the slot begins from what all servers say.
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while any(self._owner_by(port, slot) != target for port in self.ports):
            assert time.monotonic() < deadline, f"the servers do not agree who has slot {slot}"
            time.sleep(0.01)

    def _replication(self) -> dict[str, Any]:
        with redis.Redis(port=self.ports[-1]) as replica:
            return cast(dict[str, Any], replica.info("replication"))

    async def kill_first(self) -> None:
        """kill -9, and wait until its replica has taken over."""
        os.kill(self.processes[0].pid, signal.SIGKILL)
        self.processes[0].wait()
        await wait_until(lambda: self._replication()["role"] == "master", 30, "the replica as a primary")


@dataclass(frozen=True)
class Move:
    """A slot on its way from one server to another."""

    cluster: Clustered
    slot: int
    source: int
    target: int

    @classmethod
    def begin(cls, cluster: Clustered, slot: int, target: int) -> Move:
        """From here on the slot is open on both servers.

        Only once the target knows the source's epoch, which may be one move old: a target that does not, takes
        the slot with an older epoch, loses it to the next ping of the source, and then no one has it for good.
        Servers learn of an epoch with a later ping.
        """
        move = cls(cluster, slot, cluster.owner_of(slot), target)
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while not move._settled():
            assert time.monotonic() < deadline, "the target does not hear of the source's epoch"
            time.sleep(0.01)
        move._say(move.target, "IMPORTING", node_id(move.source))
        move._say(move.source, "MIGRATING", node_id(move.target))
        return move

    def step(self, most: int = 10) -> bool:
        """Move a few keys; whether there were any."""
        with redis.Redis(port=self.source) as server:
            keys = cast(list[bytes], server.execute_command("CLUSTER GETKEYSINSLOT", self.slot, most))
            if keys:
                server.execute_command("MIGRATE", "127.0.0.1", self.target, "", 0, 5000, "KEYS", *keys)
        return bool(keys)

    def finish(self) -> None:
        """The target has the slot."""
        name = node_id(self.target)
        others = [port for port in self.cluster.ports if port not in (self.source, self.target)]
        for port in (self.target, self.source, *others):
            with redis.Redis(port=port) as server:
                if server.info("replication")["role"] == "master":
                    server.execute_command("CLUSTER SETSLOT", self.slot, "NODE", name)

    def _settled(self) -> bool:
        """Whether the target knows the source's epoch, and its own is another."""
        with redis.Redis(port=self.source) as source, redis.Redis(port=self.target) as target:
            actual = int(cast(dict[str, str], source.execute_command("CLUSTER INFO"))["cluster_my_epoch"])
            own = int(cast(dict[str, str], target.execute_command("CLUSTER INFO"))["cluster_my_epoch"])
            nodes = cast(dict[str, dict[str, str]], target.execute_command("CLUSTER NODES"))
        name = node_id(self.source)
        known = next(int(node["epoch"]) for node in nodes.values() if node["node_id"] == name)
        return known == actual != own

    def _say(self, port: int, *words: str) -> None:
        with redis.Redis(port=port) as server:
            server.execute_command("CLUSTER SETSLOT", self.slot, *words)


@contextmanager
def clustered(folder: Path, timeout_ms: int = _TIMEOUT_MS) -> Iterator[Clustered]:
    """Everything started and formed; `replicate` and `ready` have to be awaited. Ends what it started.

    `timeout_ms`: after which silence a server counts as failed.
    """
    made = Clustered(free_ports(_PRIMARIES + 1))
    try:
        for port in made.ports:
            made.processes.append(start_server(folder, port, timeout_ms))
        for port in made.ports:
            with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as server:
                while not _answers(server):
                    pass
        made.form()
        yield made
    finally:
        for process in made.processes:
            process.kill()
            process.wait()


def node_id(port: int) -> str:
    """What a server of a Cluster calls itself."""
    with redis.Redis(port=port) as server:
        return cast(bytes, server.execute_command("CLUSTER MYID")).decode()


def start_server(folder: Path, port: int, timeout_ms: int) -> subprocess.Popen[bytes]:
    """One server that may be part of a Cluster."""
    own = folder / f"server-{port}"
    own.mkdir()
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": own,
        "save": "",
        "cluster-enabled": "yes",
        "cluster-node-timeout": timeout_ms,
        "repl-diskless-sync-delay": 0,
    }
    with (own / "log").open("wb") as log:
        return subprocess.Popen(
            [find_server(), *(str(word) for name, value in options.items() for word in (f"--{name}", value))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )


def _answers(server: redis.Redis) -> bool:
    try:
        return bool(server.ping())
    except redis.ConnectionError:
        return False


def free_ports(count: int) -> list[int]:
    """Different ports, each with a companion for the Cluster's own messages, 10,000 higher, that is free as well."""
    ports = list[int]()
    with ExitStack() as held:
        while len(ports) < count:
            probe, bus = held.enter_context(socket.socket()), held.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port > 55535:
                continue
            try:
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            ports.append(port)
    return ports
