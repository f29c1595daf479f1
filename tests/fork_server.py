"""A process that has imported the product, and forks one gateway or worker a request: `python tests/fork_server.py FD`.

Importing takes most of a second of CPU, and a whole run of the tests starts hundreds of processes. What is forked runs
the command line as the installed program does: its own arguments, environment, folder, output and session.

A request is one packet on the socket FD: JSON, with the descriptors of the output and of a pipe for the exit status.
The answer is the process id. The status follows on that pipe once the process has ended; negative after a signal.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from pathlib import Path
from typing import Any

LARGEST = 2**20
_MODULES = (
    "selfhost_transport.cli",
    "selfhost_transport.redis_io.preflight",
    "gateway.server",
    "agent_worker.runtime.main",
    "agent_worker.scripted.model",
)


def serve(requests: socket.socket) -> list[str] | None:
    """Fork as asked until the other end closes. Returns in each child, with its arguments; None in the server."""
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    statuses: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if woken in ready:
                os.read(woken, 4096)
                _collect(statuses)
            if requests not in ready:
                continue
            packet, descriptors, _, _ = socket.recv_fds(requests, LARGEST, 2)
            if not packet:
                break
            output, status = descriptors
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (woken, wake, requests.detach(), status, *statuses.values()):
                    os.close(descriptor)
                return _become(json.loads(packet), output)
            os.close(output)
            statuses[pid] = status
            requests.send(str(pid).encode())
    for pid in statuses:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return None


def _collect(statuses: dict[int, int]) -> None:
    """Write the exit statuses of those that have ended."""
    while statuses:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        descriptor = statuses.pop(pid)
        # The test may not want to know any more.
        with contextlib.suppress(BrokenPipeError):
            os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def _become(request: dict[str, Any], output: int) -> list[str]:
    os.setsid()
    silence = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((silence, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, target)
    os.close(silence)
    os.close(output)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    return list(request["arguments"])


def _prepare() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    # Nothing of it is ever collected: the pages stay shared.
    gc.collect()
    gc.freeze()


def _main() -> None:
    # The installed program has its own folder there.
    sys.path[0] = str(Path(sys.executable).parent)
    _prepare()
    arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    if arguments is not None:
        sys.argv = arguments
        from selfhost_transport.cli import main

        main()


if __name__ == "__main__":
    _main()
