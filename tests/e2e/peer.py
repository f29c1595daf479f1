"""A participant written with the unmodified JS SDK, which does what a test says."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.e2e.node import FOLDER
from tests.e2e.stage import KEY, Stage


class Peer:
    """A node process with an agent and a reader of one session; see `tests/js/peer.mjs`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def ask(self, **command: object) -> None:
        """Send a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def heard(self, key: str) -> Mapping[str, Any]:
        """The next answer that has this key."""
        assert self._process.stdout is not None
        async with asyncio.timeout(15):
            while line := await self._process.stdout.readline():
                if line.startswith(b"{"):
                    answer: dict[str, Any] = json.loads(line)
                    assert "error" not in answer, answer
                    if key in answer:
                        return answer
        raise AssertionError(f"the peer ended before it said {key!r}")


@asynccontextmanager
async def peer(stage: Stage, session: str, script: str = "peer.mjs") -> AsyncIterator[Peer]:
    """A running peer, attached to the session through the second gateway."""
    assert (FOLDER / "node_modules").is_dir(), f"the npm packages are missing: run `npm ci` in {FOLDER}"
    ports = ",".join(str(gateway.port) for gateway in stage.gateways)
    named = {
        "PORT": str(stage.gateways[1].port),
        "PORTS": ports,
        "KEY": KEY,
        "SESSION": session,
        "AI_VERSIONS": "7",
    }
    env = {**os.environ, **named}
    process = await asyncio.create_subprocess_exec(
        "node",
        str(FOLDER / script),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=env,
    )
    assert process.stdout is not None and process.stdin is not None
    try:
        async with asyncio.timeout(15):
            assert await process.stdout.readline() == b"ready peer\n"
        yield Peer(process)
    finally:
        process.kill()
        await process.communicate()
