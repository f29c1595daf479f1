"""The npm package `selfhost-transport` (clients/javascript): built once for a run, and where its suites find what they need."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from selfhost_transport.turns.context import turn_id_for
from tests.machine import find_browser
from tests.processes import Stack

LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
# A stack keeps settings of the surroundings from its processes; the suites are to know of this one.
LENGTH = {"SELFHOST_TRANSPORT_LONG": "1"} if LONG else {}
PACKAGE = Path(__file__).parent.parent.parent / "clients" / "javascript"
# With ably 2.23, React 18, and version 6 of the AI SDK; PACKAGE has the newest ones.
LOWEST = PACKAGE / "test" / "lowest"
# Two processes of one test run have the same, and build once.
_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
_STATE = PACKAGE / ".build"
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
    """A gateway and a worker on one Redis, for all suites of a module."""

    def __init__(self, stack: Stack, port: int) -> None:
        self.stack = stack
        self.environment = {
            **LENGTH,
            "KEY": KEY,
            "READER_KEY": "app.reader:a-secret-of-the-tests",
            "ASKER_KEY": "app.asker:a-secret-of-the-tests",
            "PORTS": str(port),
            "CHROMIUM": find_browser(),
            "TURN_SESSION": SESSION,
            "TURN_INPUT": "an-input",
            "TURN_ID": turn_id_for(SESSION, "an-input"),
        }


@asynccontextmanager
async def open_site(redis_url: str, folder: Path) -> AsyncIterator[Site]:
    """Start gateway and worker under a prefix of their own; end them afterwards."""
    async with Stack.opened(redis_url, folder) as stack:
        gateway = await stack.gateway(config=CONFIG)
        await stack.worker("tests.e2e.guarding_agent:worker", config=CONFIG)
        yield Site(stack, gateway.port)


def build() -> None:
    """The package in `dist`, and beside the lowest versions of its peers. Once in a test run, in whatever processes."""
    with _alone():
        built = _STATE / "run"
        if built.exists() and built.read_text() == _RUN:
            return
        done = subprocess.run(
            ["node", str(PACKAGE / "build.mjs")], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"the package cannot be built:\n{done.stdout}{done.stderr}"
        _install_beside_the_lowest_peers()
        built.write_text(_RUN)


@contextmanager
def _alone() -> Iterator[None]:
    """No other process is in here meanwhile."""
    _STATE.mkdir(exist_ok=True)
    with (_STATE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install_beside_the_lowest_peers() -> None:
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
