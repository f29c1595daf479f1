"""The C programs: compiled when they are first needed, and talked to by their standard input and output."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

_SOURCES = Path(__file__).parent / "native"
READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0


class NativePrograms:
    """A context in which the programs exist. `available` is False without a C compiler."""

    def __init__(self) -> None:
        self._compiler = shutil.which("cc") or shutil.which("gcc")
        self._stack = ExitStack()
        self._folder = Path()

    @property
    def available(self) -> bool:
        """Whether there is a compiler."""
        return self._compiler is not None

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="benchmarks-")))
        if self._compiler is not None:
            for source in sorted(_SOURCES.glob("*.c")):
                program = self._folder / source.stem
                subprocess.run([self._compiler, "-O2", "-o", str(program), str(source)], check=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    async def start(self, name: str, *arguments: str) -> Program:
        """Start a program by the name of its source."""
        return await Program.start(str(self._folder / name), *arguments)


class Program:
    """A running program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, *command: str) -> Self:
        """Start any command that keeps to the same manners."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # When one side ends first, the other complains.
            stderr=asyncio.subprocess.DEVNULL,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def line(self) -> str:
        """The next line it prints. Raises TimeoutError, or RuntimeError when it ended instead."""
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_TIMEOUT_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a program ended with status {await self._process.wait()}")
        return line.decode().strip()

    def send_line(self, text: str = "") -> None:
        """Give it a line to read."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")

    async def finish(self) -> list[float]:
        """Close its input, and return the numbers of its last line."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        numbers = [float(number) for number in (await self.line()).split()]
        await self._process.wait()
        return numbers

    async def stop(self) -> None:
        """Ask it to end, which gives it the chance to end its own children."""
        if self._process.returncode is None:
            self._process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End it if it has not ended."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
