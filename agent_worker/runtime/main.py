"""A worker as a process: find it, run it, stop it on a signal."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import signal
import sys
import traceback
from pathlib import Path

from agent_worker.runtime.metrics import metrics_served
from agent_worker.runtime.process import leave_threads_behind, run_process
from agent_worker.runtime.worker import Worker
from selfhost_transport import tracing
from selfhost_transport.descriptors import raise_descriptor_limit
from selfhost_transport.errors import InvalidArgument
from selfhost_transport.gc_tuning import tune_gc
from selfhost_transport.settings import Settings

SCRIPTED = "agent_worker.scripted.model:scripted_worker"


def run_worker(settings: Settings, target: str | None = None, once: bool = False) -> None:
    """Run the worker `MODULE:OBJECT`, or the scripted model, until SIGTERM or Ctrl-C.

    Prints `ready worker <id>` once it takes turns; with `once` it stops when nothing is left to be done. The object is
    a Worker, or a function that returns one; the given settings replace its own. Raises InvalidArgument for a target
    that is not there, and what `Worker.run` does.
    """
    worker = find_worker(target or SCRIPTED)
    worker.settings = settings
    worker.once = once or worker.once
    # An agent's model calls and tools have sockets of their own.
    raise_descriptor_limit()
    with tracing.tracing(settings, "selfhost-transport-worker"):
        run_process(_run_measured(worker, settings), worker.ready.is_set)
    leave_threads_behind()


def find_worker(target: str) -> Worker:
    """Import `MODULE:OBJECT`, also from the current folder. Raises InvalidArgument with the missing part."""
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise InvalidArgument(
            f"{target!r} is not of the form MODULE:OBJECT, for example `myapp.agents:worker`"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InvalidArgument(f"{target!r}: {error}; is it on the path, or in the current folder?") from error
    except Exception as error:
        raise _failed(target, error) from error
    worker = getattr(found, name, None)
    if inspect.isfunction(worker) and not inspect.signature(worker).parameters:
        try:
            worker = worker()
        except Exception as error:
            raise _failed(target, error) from error
    if not isinstance(worker, Worker):
        known = [each for each, value in vars(found).items() if isinstance(value, Worker)]
        hint = f"; {module_name} has {', '.join(known)}" if known else ""
        raise InvalidArgument(f"{target!r} is not a Worker, nor a function that returns one{hint}")
    return worker


def _failed(target: str, error: Exception) -> InvalidArgument:
    """What the application's own module raised, and where in it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = (
        f" ({frames[-1].filename}, line {frames[-1].lineno})"
        if frames and not isinstance(error, SyntaxError)
        else ""
    )
    return InvalidArgument(f"{target!r} cannot be loaded: {type(error).__name__}: {error}{place}")


async def _run_measured(worker: Worker, settings: Settings) -> None:
    async with metrics_served(worker, settings):
        await _run(worker)


async def _run(worker: Worker) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    running = asyncio.create_task(worker.run(), name="worker")
    ready = asyncio.create_task(worker.ready.wait(), name="ready")
    await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        tune_gc()
        print(f"ready worker {worker.worker_id}", flush=True)
    ready.cancel()
    await running
