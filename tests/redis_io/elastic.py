"""A Cluster changed with the tool that operators use: `redis-cli --cluster reshard`, `add-node`, `rebalance`, `del-node`."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import redis

from selfhost_transport.redis_io.embedded import find_server
from tests.redis_io.clusters import Clustered, free_ports, node_id, start_server

_WITHIN_S: Final = 90


def find_cli() -> str:
    """The redis-cli of the server's release: beside it, or on the PATH."""
    beside = Path(find_server()).with_name("redis-cli")
    found = str(beside) if beside.exists() else shutil.which("redis-cli")
    assert found, "no redis-cli was found beside redis-server, nor on the PATH"
    return found


@dataclass(slots=True)
class Elastic:
    """Each method returns once all servers agree on the change. `timeout_ms` as in `clustered`."""

    cluster: Clustered
    folder: Path
    timeout_ms: int

    def reshard(self, source: int, target: int, slots: int) -> None:
        """Move so many slots from one server to another (ports)."""
        names = ("--cluster-from", node_id(source), "--cluster-to", node_id(target))
        self._cli("reshard", self._address(source), *names, "--cluster-slots", str(slots), "--cluster-yes")
        self.agree()

    def add(self) -> int:
        """One more server, without slots: its port."""
        [port] = free_ports(1)
        self.cluster.processes.append(start_server(self.folder, port, self.timeout_ms))
        self._until(lambda: _answers(port), "the new server answers")
        self._cli("add-node", self._address(port), self._address(self.cluster.ports[0]))
        self.cluster.ports.append(port)
        self.agree()
        return port

    def rebalance(self) -> None:
        """The same number of slots on each server; a new one gets its share."""
        self._cli("rebalance", self._address(self.cluster.ports[0]), "--cluster-use-empty-masters")
        self.agree()

    def remove(self, port: int) -> None:
        """Give a server's slots to the others, take it out of the Cluster, and end it."""
        others = [other for other in self.primaries() if other != port]
        share = self.slots_of(port) // len(others) + 1
        for other in others:
            if left := self.slots_of(port):
                self.reshard(port, other, min(share, left))
        self._cli("del-node", self._address(others[0]), node_id(port))
        process = self.cluster.processes.pop(self.cluster.ports.index(port))
        self.cluster.ports.remove(port)
        process.terminate()
        process.wait()
        self.agree()

    def primaries(self) -> list[int]:
        """The ports of all servers that are no replica."""
        return [port for port in self.cluster.ports if _role(port) == "master"]

    def slots_of(self, port: int) -> int:
        """How many slots a server says that it has."""
        with redis.Redis(port=port) as server:
            owned = cast(list[list[object]], server.execute_command("CLUSTER SLOTS"))
        return sum(
            int(str(last)) - int(str(first)) + 1
            for first, last, primary, *_ in owned
            if cast(list[object], primary)[1] == port
        )

    def agree(self) -> None:
        """Wait for it: redis-cli begins a change only where all servers say the same; they hear of the last one by and by."""
        self._until(self._all_known, "each server knows the others")
        self._until(lambda: self._checked().returncode == 0, "the servers agree")

    def _all_known(self) -> bool:
        return all(_knows(port, len(self.cluster.ports)) for port in self.cluster.ports)

    def _checked(self) -> subprocess.CompletedProcess[str]:
        return self._run("check", self._address(self.cluster.ports[0]))

    def _cli(self, *words: str) -> None:
        done = self._run(*words)
        assert done.returncode == 0, (
            f"redis-cli --cluster {' '.join(words)}:\n{done.stdout[-2000:]}{done.stderr}"
        )

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [find_cli(), "--cluster", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_WITHIN_S)

    @staticmethod
    def _until(so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _WITHIN_S
        while not so():
            assert time.monotonic() < deadline, f"not within {_WITHIN_S} s: {what}"
            time.sleep(0.05)

    @staticmethod
    def _address(port: int) -> str:
        return f"127.0.0.1:{port}"


def _role(port: int) -> str:
    with redis.Redis(port=port) as server:
        return str(server.info("replication")["role"])


def _knows(port: int, count: int) -> bool:
    """Whether a server has spoken to so many, itself included, and serves; a new one refuses keys for some seconds."""
    with redis.Redis(port=port) as server:
        nodes = cast(dict[str, dict[str, Any]], server.execute_command("CLUSTER NODES"))
        state = cast(dict[str, str], server.execute_command("CLUSTER INFO"))["cluster_state"]
    return state == "ok" and sum("handshake" not in str(node["flags"]) for node in nodes.values()) == count


def _answers(port: int) -> bool:
    try:
        with redis.Redis(port=port) as server:
            return bool(server.ping())
    except redis.ConnectionError:
        return False
