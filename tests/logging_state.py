"""Logging as it was before: servers and commands that run inside a test configure the whole process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def logging_restored() -> Iterator[None]:
    """Puts handlers, filters, level and propagation of every logger back at the end."""
    before = {logger: _state(logger) for logger in _loggers()}
    try:
        yield
    finally:
        for logger in _loggers():
            handlers, filters, level, propagate, disabled = before.get(
                logger, ([], [], logging.NOTSET, True, False)
            )
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled


def _loggers() -> list[logging.Logger]:
    known = list(logging.root.manager.loggerDict.values())
    return [logging.root, *(one for one in known if isinstance(one, logging.Logger))]


_State = tuple[list[logging.Handler], list[logging.Filter], int, bool, bool]


def _state(logger: logging.Logger) -> _State:
    return list(logger.handlers), list(logger.filters), logger.level, logger.propagate, logger.disabled  # type: ignore[arg-type]
