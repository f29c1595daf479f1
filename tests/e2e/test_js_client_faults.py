"""The npm package `selfhost-transport`: killed gateways, a restarted Redis, and what else its suite asks for."""

from __future__ import annotations

import asyncio
from pathlib import Path

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from tests.e2e.js_package import CONFIG, KEY, LENGTH, PACKAGE, build
from tests.machine import free_port
from tests.processes import Proc, Stack


class Accidents:
    """A stack that is broken when the suite asks for it, with a line `do THING NUMBER` on its output."""

    def __init__(self, stack: Stack, redis: EmbeddedRedis, done: Path) -> None:
        self._stack = stack
        self._redis = redis
        self._done = done
        self._gateway: Proc | None = None
        self._port = 0

    async def start(self) -> int:
        """Start the gateway, again on the port that it had, and return that."""
        self._gateway = await self._stack.gateway(port=self._port, config=CONFIG)
        self._port = self._gateway.port
        return self._port

    async def cause(self, thing: str, number: str) -> None:
        assert self._gateway is not None
        if thing == "kill-gateway":
            self._gateway.kill()
            await self._gateway.wait()
        elif thing == "start-gateway":
            await self.start()
        else:
            await asyncio.to_thread(self._redis.stop)
            await asyncio.to_thread(self._redis.start)
        (self._done / number).touch()


async def test_what_can_go_wrong(tmp_path: Path) -> None:
    build()
    done = tmp_path / "done"
    done.mkdir()
    with EmbeddedRedis(tmp_path / "redis", port=free_port()) as redis:
        async with Stack.opened(redis.url, tmp_path) as stack:
            accidents = Accidents(stack, redis, done)
            port = await accidents.start()
            await stack.worker(config=CONFIG)
            suite = await stack.run(
                # Not by `node --test`, which holds back what a suite prints.
                *("node", "--test-force-exit", "--test-reporter=spec"),
                str(PACKAGE / "test" / "unlucky.test.mjs"),
                env={**LENGTH, "KEY": KEY, "PORTS": str(port), "DONE": str(done)},
            )
            await cause_all(suite, accidents)
            assert await suite.wait() == 0, suite.log


async def cause_all(suite: Proc, accidents: Accidents) -> None:
    """Do what the suite asks for until it has ended."""
    seen = 0
    while suite.returncode is None:
        await asyncio.sleep(0.01)
        for line in suite.lines[seen:]:
            match line.split():
                case ["do", thing, number]:
                    await accidents.cause(thing, number)
        seen = len(suite.lines)
