"""A child that user code forks does not become a second worker: it would read replies of Redis that are the parent's."""

from __future__ import annotations

import logging
import os
import sys

logger = logging.getLogger(__name__)

generation = 0
"""How often this process, or what it was forked from, is a fork; read it before user code runs, and after."""


def _count() -> None:
    global generation
    generation += 1


os.register_at_fork(after_in_child=_count)


def end_child(code: object, error: BaseException | None = None) -> None:
    """End the process, a child that came back from user code. An exit that was asked for keeps its status."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        status = error.code or 0
    else:
        status = 1
        logger.error(
            "worker.child_ended %s: user code forked, and the child would have continued as a second worker; "
            "end it with os._exit, or use subprocess",
            code,
        )
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(status)
