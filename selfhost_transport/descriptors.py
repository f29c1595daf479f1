"""The limit of open files and sockets of a process, which decides how many connections it can have."""

from __future__ import annotations

import logging
import resource

logger = logging.getLogger(__name__)


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one, which needs no privilege; returns the limit in force.

    The usual soft limit of 1,024 is there for programs that use `select`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        # macOS has a lower bound of its own than the one it reports.
        logger.warning("descriptors.limit_not_raised soft=%s hard=%s error=%s", soft, hard, error)
        return soft
    return hard


def descriptor_limit() -> int:
    """The soft limit at this moment: an administrator may change that of a running process."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
