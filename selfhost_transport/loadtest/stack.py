"""The deployment that `--local` starts: embedded Redis, gateways and workers, as `dev` starts them."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import signal
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from selfhost_transport.commands.children import Child
from selfhost_transport.loadtest.plan import LocalOptions, Target
from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.settings import ENV_PREFIX

_AGENT = "assistant"
_KEY_NAME = "loadtest.local"


class LocalStack:
    """An asynchronous context: everything is ready inside it, and stopped and deleted after it."""

    def __init__(self, options: LocalOptions) -> None:
        self.options = options
        self.redis = EmbeddedRedis()
        self._gateways: list[Child] = []
        self._workers: list[Child] = []
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
            "redis": [self.redis.pid],
        }

    def kill_gateway(self) -> None:
        """`kill -9` the first gateway (REC-14)."""
        os.kill(self._gateways[0].pid, signal.SIGKILL)

    def redis_memory(self) -> int:
        """Bytes that Redis uses for its data."""
        with redis.Redis.from_url(self.redis.url) as client:
            return int(client.info("memory")["used_memory"])

    def redis_version(self) -> str:
        """Version of the server."""
        with redis.Redis.from_url(self.redis.url) as client:
            return str(client.info("server")["redis_version"])

    async def __aenter__(self) -> Self:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="loadtest-")))
        config = folder / "config.toml"
        config.write_text(self._configuration())
        await self._stack.enter_async_context(self.redis)
        try:
            for name, count, children in (
                ("gateway", self.options.gateways, self._gateways),
                ("worker", self.options.workers, self._workers),
            ):
                for _ in range(count):
                    children.append(await self._started(name, config))
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

    async def _started(self, name: str, config: Path) -> Child:
        listen = ("--host", "127.0.0.1", "--port", "0") if name == "gateway" else ()
        options = ("--config", str(config), *listen)
        child = await Child.start(name, options, {f"{ENV_PREFIX}REDIS": self.redis.url})
        self._stack.push_async_callback(child.stop)
        return child

    def _configuration(self) -> str:
        # Turns overlap, those of an interrupt storm several times over; and a share goes to one worker by chance.
        wanted = math.ceil(self.options.turns * 4 / self.options.workers) + 50
        concurrency = self.options.slots or wanted
        return (
            f'[[keys]]\nname = "{_KEY_NAME}"\nsecret = "{self._secret}"\n\n'
            f'[[namespaces]]\nid = "*"\nagent = "{_AGENT}"\n\n'
            f"[worker]\nconcurrency = {concurrency}\nrollup_window_ms = {self.options.window_ms}\n"
        )
