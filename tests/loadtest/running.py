"""The command as a process."""

from __future__ import annotations

import sys

from tests.processes import Proc, Stack


async def run(stack: Stack, *options: str) -> Proc:
    proc = await stack.run(sys.executable, "-m", "selfhost_transport.cli", "loadtest", *options)
    await proc.wait(90)
    return proc
