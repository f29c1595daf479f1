"""A primary, a replica, and three Sentinels that watch them: real processes on free ports."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import redis

from selfhost_transport.redis_io.embedded import EmbeddedRedis, find_server
from tests.machine import free_port
from tests.processes import wait_until

SERVICE = "chat-redis"
_COUNT = 3
_DOWN_AFTER_MS = 500


@dataclass
class Watched:
    """Servers under Sentinel. `url` is what a deployment is given."""

    servers: list[EmbeddedRedis]
    ports: list[int]
    sentinels: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/{SERVICE}"

    def primary(self) -> int:
        """The port that the first Sentinel names; 0 while it names none."""
        with redis.Redis(port=self.ports[0]) as sentinel:
            state = cast(dict[str, Any], sentinel.sentinel_masters()).get(SERVICE, {})
        return int(state.get("port", 0))

    def ready(self) -> bool:
        """Whether each Sentinel knows the others and the replica, and the replica has the data."""
        for port in self.ports:
            try:
                with redis.Redis(port=port) as sentinel:
                    state = cast(dict[str, Any], sentinel.sentinel_masters())[SERVICE]
            except redis.ConnectionError:
                return False
            if (state["num-other-sentinels"], state["num-slaves"]) != (_COUNT - 1, 1):
                return False
        return any(_in_step(server) for server in self.servers)

    async def kill_primary(self) -> None:
        """kill -9, and wait until another server is the primary."""
        was = self.primary()
        [server] = [server for server in self.servers if port_of(server) == was]
        os.kill(server.pid, signal.SIGKILL)
        await wait_until(lambda: self.primary() not in (0, was), 30, "another primary")

    def hand_over(self) -> None:
        """A planned fail-over: the old primary lives on as a replica."""
        with redis.Redis(port=self.ports[0]) as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)


def _in_step(server: EmbeddedRedis) -> bool:
    """Whether a server is a replica that has all its primary has."""
    with redis.Redis.from_url(server.url) as admin:
        state = cast(dict[str, Any], admin.info("replication"))
    return (state["role"], state.get("master_link_status")) == ("slave", "up")


def port_of(server: EmbeddedRedis) -> int:
    """The port of a server."""
    return urlsplit(server.url).port or 0


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """Everything started; `Watched.ready` has to be awaited. Ends what it started."""
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedRedis()) for _ in range(2)]
        with redis.Redis.from_url(servers[0].url) as primary:
            primary.config_set("repl-diskless-sync-delay", "0")
        with redis.Redis.from_url(servers[1].url) as replica:
            replica.replicaof("127.0.0.1", port_of(servers[0]))
        made = Watched(servers, [free_port() for _ in range(_COUNT)])
        try:
            for port in made.ports:
                made.sentinels.append(_sentinel(folder, port, port_of(servers[0])))
            yield made
        finally:
            for process in made.sentinels:
                process.kill()
                process.wait()


def _sentinel(folder: Path, port: int, primary: int) -> subprocess.Popen[bytes]:
    own = folder / f"sentinel-{port}"
    own.mkdir()
    lines = [
        f"port {port}",
        "bind 127.0.0.1",
        f"dir {own}",
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 2",
        f"sentinel down-after-milliseconds {SERVICE} {_DOWN_AFTER_MS}",
        f"sentinel failover-timeout {SERVICE} 10000",
    ]
    configuration = own / "sentinel.conf"
    configuration.write_text("\n".join(lines) + "\n")
    with (own / "log").open("wb") as log:
        return subprocess.Popen(
            [find_server(), str(configuration), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
