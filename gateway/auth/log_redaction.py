"""Keeps credentials out of the server's logs: SDKs put keys and tokens into the query of a request's address."""

from __future__ import annotations

import logging
from typing import Final

from selfhost_transport.logs import redact

__all__ = ["hide_credentials", "redact"]

_LOGGERS: Final = ("uvicorn.access", "uvicorn.error")
"""Loggers of uvicorn that write addresses of requests, and of the upgrades of websockets."""


class _Redact(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record on, without the values of credentials in its arguments."""
        if isinstance(record.args, tuple):
            record.args = tuple(redact(one) if isinstance(one, str) else one for one in record.args)
        return True


def hide_credentials() -> None:
    """Have them left out by the loggers of the server that the gateway runs in. Doing it twice is doing it once."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _Redact) for known in logger.filters):
            logger.addFilter(_Redact())
