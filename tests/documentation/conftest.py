"""One running `scripts/dev` and one gateway without workers, shared by all examples."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from selfhost_transport import ClientTransport
from selfhost_transport.redis_io.embedded import EmbeddedRedis, find_server
from tests.documentation.blocks import ROOT
from tests.processes import Proc, Stack

KEY = "app.web:choose-a-secret-of-at-least-32-characters"
CONFIG = """
[[keys]]
name = "app.web"
secret = "choose-a-secret-of-at-least-32-characters"
revocable_tokens = true
[[namespaces]]
id = "*"
agent = "assistant"
[[namespaces]]
id = "book"
agent = "booker"
[[namespaces]]
id = "read"
agent = "reader"
"""


@dataclass(slots=True)
class Site:
    """Commands as a reader runs them: the programs of `.venv/bin` and Redis' are on the PATH."""

    stack: Stack
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    async def module(self, name: str, text: str, **environment: str) -> Proc:
        """A ready worker with the agents of a page."""
        name = f"agents_of_{name}"
        (self.folder / f"{name}.py").write_text(text)
        env = {"PYTHONPATH": os.pathsep.join((str(self.folder), str(ROOT))), **environment}
        return await self.stack.worker(f"{name}:worker", env=env)

    async def sh(self, text: str, **environment: str) -> Proc:
        """A shell that runs a block, in the root of the repository; it stops at the first command that fails."""
        return await self.stack.run("bash", "-euc", text, env={**self.environment, **environment})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """Processes on the shared Redis under a prefix of their own."""
    folder = tmp_path_factory.mktemp("docs")
    programs = (Path(sys.executable).parent, Path(shutil.which("redis-cli") or find_server()).parent)
    path = os.pathsep.join((*map(str, programs), os.environ["PATH"]))
    async with Stack.opened(redis_server.url, folder) as stack:
        yield Site(stack, folder, {"PATH": path})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dev(site: Site) -> Proc:
    """`scripts/dev`, with a Redis of its own."""
    data = str(site.folder / "data")
    proc = await site.stack.run(str(ROOT / "scripts" / "dev"), "--port", "0", "--data-dir", data)
    await proc.ready
    return proc


@pytest.fixture
def dev_address(dev: Proc) -> str:
    """`127.0.0.1:PORT`."""
    return dev.url.removeprefix("http://")


@pytest.fixture
def dev_redis(dev: Proc) -> str:
    """The address of its Redis, as it is printed."""
    found = re.search(r"^redis (redis://\S+)$", dev.log, re.MULTILINE)
    assert found is not None
    return found[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(site: Site) -> Proc:
    """A gateway for workers that tests start."""
    return await site.stack.gateway(config=CONFIG)


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes start in the root of the repository."""
    monkeypatch.chdir(ROOT)
    yield


def connect(gateway: Proc, channel: str) -> ClientTransport:
    """A client, to be used with `async with`."""
    return ClientTransport(gateway.url, key=KEY, client_id="user-1", channel=channel)
