"""The event loop of a worker's process: user code can neither stop it, nor keep the process from ending."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, cast

from agent_worker.user_code.tasks import guarded

logger = logging.getLogger(__name__)

LAST_S = 1.0
"""How long tasks and threads that continue after everything was stopped are waited for."""


def run_process(main: Coroutine[Any, Any, None], serves: Callable[[], bool]) -> None:
    """Run `main` to its end, as `asyncio.run` does; raises what it raises.

    While it `serves`, a loop that user code has stopped (by `stop()`, or an exit in a callback) is started again. Tasks that
    ignore their cancellation are left behind in the end.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.set_task_factory(cast(Any, guarded))
    running = loop.create_task(main, name="main")
    try:
        while not running.done():
            try:
                loop.run_until_complete(running)
            except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
                if running.done() or not serves():
                    raise
                what = type(error).__name__
                logger.error(
                    "worker.loop_stopped error=%s: user code tried to stop the loop; it continues", what
                )
        running.result()
    finally:
        _end_tasks(loop)
        asyncio.set_event_loop(None)
        loop.close()


def leave_threads_behind(status: int = 0) -> None:
    """End the process if threads of user code would keep it from ending."""
    for thread in _others():
        thread.join(LAST_S)
    if left := _others():
        logger.warning("worker.threads_left count=%d first=%s", len(left), left[0].name)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _others() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one is not threading.main_thread() and not one.daemon]


def _end_tasks(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=LAST_S))
    left = [task.get_name() for task in tasks if not task.done()]
    if left:
        logger.warning("worker.tasks_left count=%d first=%s", len(left), left[0])
    loop.run_until_complete(asyncio.wait([loop.create_task(loop.shutdown_asyncgens())], timeout=LAST_S))
