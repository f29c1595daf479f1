"""Anything that can be piped: asynchronous and plain iterables, provider responses; and how they are closed."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TypeVar

from agent_worker.user_code.containment import ControlFlow
from agent_worker.user_code.errors import described
from agent_worker.user_code.threads import PulledIterable, Threads
from selfhost_transport.errors import InvalidArgument

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLOSE_S = 5.0
"""How long a source may take to close before the turn continues without it."""

_HELD = (list, tuple, set, frozenset, deque, range)


def iterate(source: AsyncIterable[T] | Iterable[T], threads: Threads) -> AsyncIterator[T]:
    """An asynchronous iterator over either kind of iterable (STR-4); a plain one, which may block, is read by a thread.

    Raises InvalidArgument for what is neither.
    """
    if isinstance(source, AsyncIterable):
        return aiter(source)
    if isinstance(source, str | Mapping):
        return _plain((source,))  # type: ignore[arg-type]
    if type(source) in _HELD:
        return _plain(source)
    if isinstance(source, Iterable):
        return PulledIterable(source, threads)
    what = "a coroutine: await it first" if inspect.iscoroutine(source) else type(source).__name__
    raise InvalidArgument(f"`pipe` takes an iterable of chunks, not {what}")


async def close(source: object, threads: Threads | None = None) -> None:
    """Close a source that can be closed: an abort must end the provider's response, not only its reader (CAN-6).

    What its own clean-up raises is logged: how the turn ends was decided before. A plain `close` runs in one of
    `threads`, where those are given.
    """
    try:
        async with asyncio.timeout(CLOSE_S):
            await _closing(source, threads)
    except (asyncio.CancelledError, ControlFlow):
        raise
    except BaseException as error:
        logger.warning("source.close_failed source=%s error=%s", type(source).__name__, described(error))


async def _closing(source: object, threads: Threads | None) -> None:
    if callable(method := getattr(source, "aclose", None)):
        closing = method()
    elif callable(method := getattr(source, "close", None)):
        closing = method() if threads is None else threads.call(method)
    else:
        return
    if inspect.isawaitable(closing):
        await closing


async def _plain(source: Iterable[T]) -> AsyncIterator[T]:
    for item in source:
        yield item
