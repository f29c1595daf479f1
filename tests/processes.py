"""Real processes for tests: start them, wait until they are ready, stop or freeze them, show their logs."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar, overload

import psutil

from selfhost_transport.settings import ENV_PREFIX
from tests.forks import ForkedProcess, can_fork, fork

T = TypeVar("T")

COMMAND = Path(sys.executable).with_name("selfhost-transport")
READY_TIMEOUT_S = 60.0
_POLL_S = 0.005
_READY = re.compile(r"^ready (.+)$")


@overload
async def wait_until(predicate: Callable[[], Awaitable[T]], timeout: float = 20.0, what: str = "") -> T: ...
@overload
async def wait_until(predicate: Callable[[], T], timeout: float = 20.0, what: str = "") -> T: ...
async def wait_until(predicate: Callable[[], Any], timeout: float = 20.0, what: str = "") -> Any:
    """Ask every 5 ms until the answer is true, and return it.

    `predicate` may be a coroutine function. Raises AssertionError, saying `what`, after `timeout` seconds.
    """
    give_up = time.monotonic() + timeout
    while True:
        answer = predicate()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"not so within {timeout} s: {what or inspect.getsource(predicate).strip()}")
        await asyncio.sleep(_POLL_S)


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended, collected by its parent or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Proc:
    """One process and whatever it starts in its group; its output is kept line by line."""

    def __init__(self, name: str, process: asyncio.subprocess.Process | ForkedProcess) -> None:
        self.name = name
        self.lines: list[str] = []
        # What follows "ready": the address of a gateway, "worker <id>" of a worker.
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process = process
        self._reading = asyncio.create_task(self._read())

    @property
    def pid(self) -> int:
        """Process id of the leader of the group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status; None while it runs; negative after a signal."""
        return self._process.returncode

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, as printed."""
        return self.ready.result()

    @property
    def port(self) -> int:
        """The port as printed."""
        return int(self.url.rpartition(":")[2])

    @property
    def log(self) -> str:
        """Everything printed until now."""
        return "\n".join(self.lines)

    def kill(self) -> None:
        """`kill -9`, to the whole group."""
        self._signal_group(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the whole group (SIGSTOP)."""
        self._signal_group(signal.SIGSTOP)

    def proceed(self) -> None:
        """Unfreeze it (SIGCONT)."""
        self._signal_group(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM to the leader alone, as a service manager would send it."""
        if self._process.returncode is None:
            self._process.terminate()

    async def wait(self, timeout: float = 30.0) -> int:
        """Exit status, once it has ended and its output is read. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            status = await self._process.wait()
            await self._reading
        return status

    async def end(self) -> None:
        """Kill what is left of the group and collect it."""
        self.kill()
        await self._process.wait()
        # A grandchild outside the group may hold the pipe open; its output is not waited for.
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        if isinstance(self._process, ForkedProcess):
            self._process.close()
        else:
            # asyncio has no public way to give up a pipe that another holds open.
            self._process._transport.close()  # type: ignore[attr-defined]
        self.ready.cancel()

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip()
            self.lines.append(line)
            match = _READY.match(line)
            if match and not self.ready.done():
                self.ready.set_result(match[1])
        if not self.ready.done():
            self.ready.set_exception(AssertionError(f"{self.name} ended before it was ready:\n{self.log}"))
            # The failure may concern no one: a command that is not meant to become ready.
            self.ready.exception()


class Stack:
    """Starts the product's commands against one Redis and prefix, and ends all of them after the test."""

    def __init__(self, redis_url: str, redis_prefix: str, folder: Path) -> None:
        self.redis_url = redis_url
        self.redis_prefix = redis_prefix
        self.folder = folder
        self.processes: list[Proc] = []
        self._numbers = itertools.count(1)

    @classmethod
    @asynccontextmanager
    async def opened(cls, redis_url: str, folder: Path) -> AsyncIterator[Self]:
        """One under a prefix of its own, for as long as it is used."""
        stack = cls(redis_url, f"t{uuid.uuid4().hex[:12]}", folder)
        try:
            yield stack
        finally:
            await stack.close()

    async def gateway(
        self, *args: str, port: int = 0, config: str | None = None, env: Mapping[str, str] | None = None
    ) -> Proc:
        """A ready gateway; `config` is TOML text; `args` are appended to the command line."""
        listen = ("--host", "127.0.0.1", "--port", str(port))
        return await self.started("gateway", *self._shared(config), *listen, *args, env=env)

    async def worker(
        self, *args: str, config: str | None = None, env: Mapping[str, str] | None = None
    ) -> Proc:
        """A ready worker; `args` may begin with MODULE:OBJECT, else it runs the scripted model."""
        return await self.started("worker", *args, *self._shared(config), env=env)

    async def dev(
        self, *args: str, port: int = 0, config: str | None = None, env: Mapping[str, str] | None = None
    ) -> Proc:
        """The `dev` command with a Redis of its own; its data lies in `folder / "data"`."""
        places = ("--port", str(port), "--data-dir", str(self.folder / "data"))
        return await self.started("dev", *places, *self._config(config), *args, env=env)

    async def started(
        self, command: str, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Proc:
        """Run `selfhost-transport command …` and wait for its `ready` line.

        Raises AssertionError, with what it printed, if it ends or stays silent.
        """
        proc = await self._start(command, *args, env=env, cwd=cwd)
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                await asyncio.shield(proc.ready)
        except TimeoutError:
            raise AssertionError(
                f"{proc.name} was not ready within {READY_TIMEOUT_S} s:\n{proc.log}"
            ) from None
        return proc

    async def run(
        self, program: str, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Proc:
        """Start any program in a group of its own; do not wait for anything."""
        process = await asyncio.create_subprocess_exec(
            program,
            *args,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=2**22,
            env={**self._environment(), **(env or {})},
            cwd=cwd,
        )
        return self._kept(process, Path(program).name, *args[:1])

    async def close(self) -> None:
        """End everything and print the logs, which pytest shows when the test has failed."""
        for proc in self.processes:
            proc.kill()
        for proc in self.processes:
            await proc.end()
            print(f"--- {proc.name}, status {proc.returncode}\n{proc.log}")

    async def _start(self, command: str, *args: str, env: Mapping[str, str] | None, cwd: Path | None) -> Proc:
        """Run `selfhost-transport command …`, where it makes no difference as a fork that has nothing to import."""
        if not can_fork((command, *args), env):
            return await self.run(str(COMMAND), command, *args, env=env, cwd=cwd)
        forked = await fork(command, *args, environment={**self._environment(), **(env or {})}, folder=cwd)
        return self._kept(forked, COMMAND.name, command)

    def _kept(self, process: asyncio.subprocess.Process | ForkedProcess, *names: str) -> Proc:
        words = [name for name in names if not name.startswith("-")]
        proc = Proc(f"{' '.join(words)} #{next(self._numbers)}", process)
        self.processes.append(proc)
        return proc

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
        return {**inherited, "PYTHONUNBUFFERED": "1", f"{ENV_PREFIX}REDIS_PREFIX": self.redis_prefix}

    def _shared(self, config: str | None) -> tuple[str, ...]:
        return ("--redis", self.redis_url, *self._config(config))

    def _config(self, config: str | None) -> tuple[str, ...]:
        if config is None:
            return ()
        path = self.folder / f"config-{next(self._numbers)}.toml"
        path.write_text(config)
        return ("--config", str(path))
