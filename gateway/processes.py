"""Several gateway processes on one listening socket: started, watched, replaced, stopped together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final, Protocol

from prometheus_client.multiprocess import mark_process_dead

from selfhost_transport.commands.children import end_with_parent
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.logs import configure_logging
from selfhost_transport.metrics import SHARED_FOLDER
from selfhost_transport.settings import Settings

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S: Final = 15.0
# A process that cannot even start is not started over and over without a pause.
_RESTART_PAUSE_S: Final = 1.0
_IN_MEMORY: Final = "/dev/shm"

_spawn: Final = multiprocessing.get_context("spawn")


class Serve(Protocol):
    """Serves on a listening socket in one process until it is stopped. A function of a module: processes import it."""

    def __call__(  # noqa: D102
        self, settings: Settings, listening: socket.socket, on_ready: Callable[[], None], group: Path | None
    ) -> None: ...


def supervise(
    settings: Settings, listening: socket.socket, on_ready: Callable[[], None], serve: Serve
) -> None:
    """Run `settings.gateway.processes` processes of `serve` until SIGTERM or Ctrl-C; one that dies is replaced.

    Raises SystemExit when a process ends before all were ready for the first time.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with _shared_folder() as folder:
        # Any of the processes reports the metrics of all.
        os.environ[SHARED_FOLDER] = folder
        _supervise(partial(_Child, settings, listening, serve), settings, on_ready, stopping)


def _shared_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the numbers of all processes; in memory where there is no writable one for temporary files.

    A container with a read-only file system has /dev/shm. Raises InvalidArgument when nothing can be written.
    """
    for parent in (None, _IN_MEMORY):
        try:
            return tempfile.TemporaryDirectory(prefix="selfhost-transport-", dir=parent)
        except OSError as error:
            reason = error
    raise InvalidArgument(
        f"several processes need a writable folder for their metrics: mount a tmpfs at /tmp, or set TMPDIR ({reason})"
    )


def _supervise(
    start: Callable[[], _Child], settings: Settings, on_ready: Callable[[], None], stopping: threading.Event
) -> None:
    processes = [start() for _ in range(settings.gateway.processes)]
    try:
        for child in processes:
            if not child.wait_ready():
                raise SystemExit(1)
        on_ready()
        while not stopping.is_set():
            _replace_dead(processes, start, stopping)
    finally:
        for child in processes:
            child.process.terminate()
        for child in processes:
            child.process.join(STOP_TIMEOUT_S + settings.gateway.drain_ms / 1000)
            child.process.kill()


class _Child:
    def __init__(self, settings: Settings, listening: socket.socket, serve: Serve) -> None:
        self._ready, theirs = _spawn.Pipe(duplex=False)
        self.process: BaseProcess = _spawn.Process(
            target=_run, args=(settings, listening, serve, theirs, os.getpid()), name="gateway", daemon=True
        )
        self.process.start()
        theirs.close()

    def wait_ready(self) -> bool:
        """Whether it serves; False once it has ended instead."""
        try:
            return bool(self._ready.recv())
        except EOFError:
            return False


def _replace_dead(processes: list[_Child], start: Callable[[], _Child], stopping: threading.Event) -> None:
    wait([child.process.sentinel for child in processes], timeout=0.5)
    for index, child in enumerate(processes):
        if not child.process.is_alive() and not stopping.is_set():
            logger.error("gateway.process_ended pid=%s status=%s", child.process.pid, child.process.exitcode)
            mark_process_dead(child.process.pid)  # type: ignore[no-untyped-call]
            stopping.wait(_RESTART_PAUSE_S)
            processes[index] = start()


def _run(settings: Settings, listening: socket.socket, serve: Serve, ready: Connection, parent: int) -> None:
    # Else processes whose parent was killed would keep the port.
    end_with_parent(parent)
    configure_logging(settings.log.format, settings.log.level, settings.secrets)
    serve(settings, listening, lambda: ready.send(True), group=Path(os.environ[SHARED_FOLDER]))
