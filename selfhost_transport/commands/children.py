"""The processes of the `dev` command: started, watched, stopped together."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence

from selfhost_transport.errors import ServiceError

READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0

_READY = re.compile(r"^ready (.+)$")
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def end_with_parent(parent: int) -> None:
    """Ask the kernel (Linux) to end this process when its parent ends, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        raise SystemExit("the parent process has exited")


class Child:
    """One command of this program as a process; its output is printed, except for its `ready` line."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process
        self._ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._print_output(), name=f"output of {name}")

    @classmethod
    async def start(cls, name: str, options: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start `selfhost-transport <name> <options>` so that it ends with this process."""
        arguments = ("-m", "selfhost_transport.cli", name, *options, "--parent", str(os.getpid()))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
        )
        return cls(name, process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def ready(self) -> str:
        """What it printed after `ready`. Raises ServiceError if it ends or stays silent."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            raise ServiceError(f"the {self.name} was not ready within {READY_TIMEOUT_S:.0f} s") from None

    async def ended(self) -> int:
        """Its exit status, once it has ended."""
        await asyncio.shield(self._reading)
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not obey in time."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reading

    async def _print_output(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            match = _READY.match(line)
            if match and not self._ready.done():
                self._ready.set_result(match[1])
            else:
                print(f"{self.name}: {line}", flush=True)
        if not self._ready.done():
            self._ready.set_exception(
                ServiceError(f"the {self.name} ended before it was ready; see its output")
            )
            # There may be no waiter left.
            self._ready.exception()
