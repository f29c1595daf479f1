"""Processes of the product that are forked from one that has imported it already (tests/fork_server.py)."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent
LONG = os.environ.get("SELFHOST_TRANSPORT_LONG") == "1"
_PIPE_LIMIT = 2**22


def can_fork(arguments: tuple[str, ...], environment: Mapping[str, str] | None) -> bool:
    """Whether a fork is the same as a start: one process, and nothing that Python reads when it starts.

    The long form of the tests forks nothing.
    """
    own = environment or {}
    return (
        not LONG
        and arguments[0] in ("gateway", "worker")
        and "--processes" not in arguments
        and not any(name.startswith("PYTHON") for name in own)
    )


class ForkedProcess:
    """Has what the tests use of `asyncio.subprocess.Process`. Its parent is the server, which collects it."""

    def __init__(self, pid: int, stdout: asyncio.StreamReader, pipes: list[asyncio.ReadTransport]) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._pipes = pipes
        self._status: asyncio.Task[None] | None = None

    def follow(self, status: asyncio.StreamReader) -> None:
        """Take the exit status from the pipe that the server writes it to."""
        self._status = asyncio.create_task(self._follow(status))

    def terminate(self) -> None:
        """SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    async def wait(self) -> int:
        """The exit status, once it has ended; negative after a signal."""
        assert self._status is not None
        await asyncio.shield(self._status)
        assert self.returncode is not None
        return self.returncode

    def close(self) -> None:
        """Give up the pipes; another process may hold their other ends."""
        for pipe in self._pipes:
            pipe.close()
        if self._status is not None:
            self._status.cancel()

    async def _follow(self, status: asyncio.StreamReader) -> None:
        text = await status.read()
        assert text, "the server of forks has ended"
        self.returncode = int(text)


async def fork(*arguments: str, environment: Mapping[str, str], folder: Path | None = None) -> ForkedProcess:
    """Run `selfhost-transport` with these arguments, in a session of its own."""
    request = {
        "arguments": [str(Path(sys.executable).with_name("selfhost-transport")), *arguments],
        "environment": dict(environment),
        "folder": str(folder or Path.cwd()),
    }
    output, output_end = os.pipe()
    status, status_end = os.pipe()
    try:
        # The first one waits until the server has imported everything.
        pid = await asyncio.to_thread(_server().fork, json.dumps(request).encode(), (output_end, status_end))
    except BaseException:
        os.close(output)
        os.close(status)
        raise
    finally:
        os.close(output_end)
        os.close(status_end)
    (stdout, first), (ending, second) = [await _reader(end) for end in (output, status)]
    process = ForkedProcess(pid, stdout, [first, second])
    process.follow(ending)
    return process


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=_PIPE_LIMIT)
    pipe: IO[bytes] = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport


class _Server:
    """The process that forks; it ends, with whatever it forked, when this process does."""

    def __init__(self) -> None:
        self._requests, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(other.fileno())],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=[other.fileno()],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._one_at_a_time = threading.Lock()

    def fork(self, request: bytes, descriptors: tuple[int, int]) -> int:
        """The id of the new process, whose output and exit status the descriptors are for."""
        with self._one_at_a_time:
            socket.send_fds(self._requests, [request], descriptors)
            answer = self._requests.recv(64)
        assert answer, "the server of forks has ended"
        return int(answer)

    def close(self) -> None:
        """End it."""
        self._requests.close()
        self._process.wait()


@cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.close)
    return server
