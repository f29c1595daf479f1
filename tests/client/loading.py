"""Options of a client that loads history."""

from __future__ import annotations

from selfhost_transport import ClientOptions


def options(history_limit: int = 100, page_size: int = 100) -> ClientOptions:
    return ClientOptions(
        history_limit=history_limit, page_size=page_size, retry_initial=0.001, retry_max=0.01
    )
