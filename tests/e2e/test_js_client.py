"""The npm package `selfhost-transport` (clients/javascript): built, then its suites against a gateway and a worker."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from selfhost_transport.redis_io.embedded import EmbeddedRedis
from selfhost_transport.turns.context import turn_id_for
from tests.e2e.node import run_suite
from tests.e2e.test_embedding import free_port
from tests.e2e.test_page import BROWSERS
from tests.processes import Proc, Stack

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
# A stack keeps settings of the surroundings from its processes; the suites are to know of this one.
LENGTH = {"SELFHOST_TRANSPORT_LONG": "1"} if LONG else {}
PACKAGE = Path(__file__).parent.parent.parent / "clients" / "javascript"
# With ably 2.23, React 18, and version 6 of the AI SDK; PACKAGE has the newest ones.
LOWEST = PACKAGE / "test" / "lowest"
KEY = "app.key:a-secret-of-the-tests"
# Longer than one block of the digest, and not of ASCII alone.
SESSION = "chat:ünï\N{WHITE SMILING FACE}" + "x" * 60
CONFIG = """
[[keys]]
name = "app.key"
secret = "a-secret-of-the-tests"
capability = { "*" = ["*"] }

[[keys]]
name = "app.reader"
secret = "a-secret-of-the-tests"
capability = { "*" = ["subscribe", "history"] }

[[keys]]
name = "app.asker"
secret = "a-secret-of-the-tests"
capability = { "*" = ["subscribe", "history", "publish", "turn-start"] }

[[namespaces]]
id = "*"
agent = "assistant"

[[namespaces]]
id = "queue"
agent = "assistant"
policy = "queue"

[[namespaces]]
id = "guarded"
agent = "guard"

[[namespaces]]
id = "idle"
agent = "no-one"
"""


class Site:
    """A gateway and a worker on one Redis, for all suites of this module, and the built package."""

    def __init__(self, stack: Stack, port: int) -> None:
        self.stack = stack
        self.environment = {
            **LENGTH,
            "KEY": KEY,
            "READER_KEY": "app.reader:a-secret-of-the-tests",
            "ASKER_KEY": "app.asker:a-secret-of-the-tests",
            "PORTS": str(port),
            "CHROMIUM": next(filter(None, map(shutil.which, BROWSERS)), ""),
            "TURN_SESSION": SESSION,
            "TURN_INPUT": "an-input",
            "TURN_ID": turn_id_for(SESSION, "an-input"),
        }


@pytest.fixture(scope="module")
def built() -> None:
    """The package in `dist`, and beside the lowest versions of its peers."""
    build = subprocess.run(["node", str(PACKAGE / "build.mjs")], capture_output=True, text=True, timeout=120)
    assert build.returncode == 0, f"the package cannot be built:\n{build.stdout}{build.stderr}"
    install_beside_the_lowest_peers()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(
    built: None, redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Site]:
    stack = Stack(redis_server.url, f"t{uuid.uuid4().hex[:12]}", tmp_path_factory.mktemp("site"))
    try:
        gateway = await stack.gateway(config=CONFIG)
        await stack.worker("tests.e2e.guarding_agent:worker", config=CONFIG)
        yield Site(stack, gateway.port)
    finally:
        await stack.close()


def install_beside_the_lowest_peers() -> None:
    """Put the package, as npm would, and its suites where the lowest versions of its peers are."""
    assert (LOWEST / "node_modules").is_dir(), (
        f"the npm packages of {LOWEST} are missing: run `scripts/setup --test`"
    )
    installed = LOWEST / "node_modules" / "selfhost-transport"
    suites = LOWEST / ".build"
    for folder in (installed, suites):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(PACKAGE / "dist", installed / "dist")
    shutil.copy(PACKAGE / "package.json", installed)
    shutil.copytree(PACKAGE / "test", suites, ignore=shutil.ignore_patterns("lowest", ".build"))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "suite", ["react", "vercel", *(["types", "turns", "edges", "local"] if LONG else [])]
)
async def test_it_runs_with_the_lowest_versions_of_its_peers(site: Site, suite: str) -> None:
    versions = {"REACT": "18.0.0", "ABLY": "2.23.0"}
    environment = {**site.environment, **versions}
    await run_suite(site.stack, f"{suite}.test.mjs", environment, folder=LOWEST / ".build")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "suite", ["package", "turns", "edges", "react", "vercel", "local", "types", "browser", "readme"]
)
async def test_the_client_of_the_first_generation(site: Site, suite: str) -> None:
    await run_suite(site.stack, f"{suite}.test.mjs", site.environment, folder=PACKAGE / "test")


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


async def test_what_can_go_wrong(built: None, tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.mkdir()
    with EmbeddedRedis(tmp_path / "redis", port=free_port()) as redis:
        stack = Stack(redis.url, f"t{uuid.uuid4().hex[:12]}", tmp_path)
        try:
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
        finally:
            await stack.close()


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
