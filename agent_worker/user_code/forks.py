"""A child that user code forks does not become a second worker: it would read replies of Redis that are the parent's."""

from __future__ import annotations

import logging
import os
from typing import ClassVar

logger = logging.getLogger(__name__)


class Forks:
    """How often this process, with those that it was forked from, is a fork: read before user code runs, and after."""

    count: ClassVar[int] = 0


def _count() -> None:
    Forks.count += 1


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
    # Without flushing: what is in the buffers of files is the parent's, and would be written twice.
    os._exit(status)
