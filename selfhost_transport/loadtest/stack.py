"""The deployment that `--local` starts: embedded Redis, gateways and workers, as `dev` starts them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import secrets
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

import redis

from selfhost_transport.commands.children import Child
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.loadtest.plan import LocalOptions, Target
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX

_AGENT = "assistant"
_KEY_NAME = "loadtest.local"
_FAKE_KEY = "fake-provider"


# In a process of its own, as the worker will be: with its environment, and without what the module leaves behind.
_LIST_AGENTS = """
import json, sys
from agent_worker.runtime.main import find_worker
from selfhost_transport.errors import TransportError
try:
    print(json.dumps(list(find_worker(sys.argv[1]).agents)))
except TransportError as error:
    sys.exit(str(error))
"""


async def agents_of(target: str, environment: Mapping[str, str]) -> list[str]:
    """The agents of the worker MODULE:OBJECT. Raises InvalidArgument for one that is not there, or has none."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _LIST_AGENTS, target),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, error = await process.communicate()
    if process.returncode:
        raise InvalidArgument(error.decode(errors="replace").strip().rpartition("\n")[2])
    agents: list[str] = json.loads(out.splitlines()[-1])
    if not agents:
        raise InvalidArgument(f"the worker {target!r} has no agents")
    return agents


def _info(url: str, section: str) -> dict[str, Any]:
    with redis.Redis.from_url(url) as client:
        return cast(dict[str, Any], client.info(section))


class RedisServers(Protocol):
    """One Redis, or several: an asynchronous context, inside which they run."""

    @property
    def url(self) -> str:
        """The address that gateways and workers are given."""

    @property
    def urls(self) -> list[str]:
        """The address of each server."""

    @property
    def pids(self) -> list[int]:
        """The process of each server."""

    async def __aenter__(self) -> Self:
        """Start."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""


class LocalStack:
    """An asynchronous context: everything is ready inside it, and stopped and deleted after it."""

    def __init__(self, options: LocalOptions, servers: RedisServers | None = None) -> None:
        self.options = options
        self.redis: RedisServers = EmbeddedRedis() if servers is None else servers
        self._gateways: list[Child] = []
        self._workers: list[Child] = []
        self._providers: list[Child] = []
        self._urls: list[str] = []
        self._secret = secrets.token_urlsafe(16)
        self._stack = AsyncExitStack()

    @property
    def target(self) -> Target:
        """Where to connect, with the key made for this run."""
        return Target.parse(self._urls, f"{_KEY_NAME}:{self._secret}", "")

    @property
    def pids(self) -> dict[str, list[int]]:
        """Processes by role."""
        return {
            "gateway": [child.pid for child in self._gateways],
            "worker": [child.pid for child in self._workers],
            "redis": self.redis.pids,
            **({"provider": [child.pid for child in self._providers]} if self._providers else {}),
        }

    def kill_gateway(self) -> None:
        """`kill -9` the first gateway (REC-14)."""
        os.kill(self._gateways[0].pid, signal.SIGKILL)

    def redis_memory(self) -> int:
        """Bytes that Redis uses for its data, all servers together."""
        return sum(int(_info(url, "memory")["used_memory"]) for url in self.redis.urls)

    def redis_version(self) -> str:
        """Version of the server."""
        return str(_info(self.redis.urls[0], "server")["redis_version"])

    async def __aenter__(self) -> Self:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtest-")))
        config = folder / "config.toml"
        await self._stack.enter_async_context(self.redis)
        try:
            environment = await self._provider_environment()
            agents = await agents_of(self.options.agent, environment) if self.options.agent else [_AGENT]
            config.write_text(self._configuration(agents))
            for name, count, children in (
                ("gateway", self.options.gateways, self._gateways),
                ("worker", self.options.workers, self._workers),
            ):
                for _ in range(count):
                    children.append(await self._started(name, config, environment))
            self._urls = [await child.ready() for child in self._gateways]
            await asyncio.gather(*(child.ready() for child in self._workers))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _provider_environment(self) -> dict[str, str]:
        """Start the fake provider, if there is to be one. Where the libraries look for their provider."""
        if self.options.provider is None:
            return {}
        child = await Child.start("fake-provider", ("--port", "0", *self.options.provider), {})
        self._stack.push_async_callback(child.stop)
        self._providers.append(child)
        url = await child.ready()
        return {
            "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": _FAKE_KEY,
            "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": _FAKE_KEY,
            f"{ENV_PREFIX}FREE_MODELS": "true",
        }  # fmt: skip

    async def _started(self, name: str, config: Path, environment: Mapping[str, str]) -> Child:
        listen = ("--host", "127.0.0.1", "--port", "0") if name == "gateway" else ()
        agent = (self.options.agent,) if name == "worker" and self.options.agent else ()
        options = (*agent, "--config", str(config), *listen)
        given = environment if name == "worker" else {}
        child = await Child.start(name, options, {**given, f"{ENV_PREFIX}REDIS": self.redis.url})
        self._stack.push_async_callback(child.stop)
        return child

    def _configuration(self, agents: Sequence[str]) -> str:
        # Of several agents each answers in the namespace of its name; the first one in all others.
        own = [(name, name) for name in agents] if len(agents) > 1 else []
        bindings = [*own, ("*", agents[0])]
        # Turns overlap, those of an interrupt storm several times over; and a share goes to one worker by chance.
        wanted = math.ceil(self.options.turns * 4 / self.options.workers) + 50
        concurrency = self.options.slots or wanted
        return (
            f'[[keys]]\nname = "{_KEY_NAME}"\nsecret = "{self._secret}"\n\n'
            + "".join(f'[[namespaces]]\nid = "{name}"\nagent = "{agent}"\n\n' for name, agent in bindings)
            + f"[worker]\nconcurrency = {concurrency}\nrollup_window_ms = {self.options.window_ms}\n"
        )
