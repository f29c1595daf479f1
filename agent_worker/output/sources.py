"""Anything that can be piped: asynchronous and plain iterables, provider responses; and how they are closed."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")


def iterate(source: AsyncIterable[T] | Iterable[T]) -> AsyncIterator[T]:
    """An asynchronous iterator over either kind of iterable (STR-4)."""
    if isinstance(source, AsyncIterable):
        return aiter(source)
    return _plain(source)


async def close(source: object) -> None:
    """Close a source that can be closed: an abort must end the provider's response, not only its reader (CAN-6)."""
    for name in ("aclose", "close"):
        method = getattr(source, name, None)
        if callable(method):
            closing = method()
            if inspect.isawaitable(closing):
                await closing
            return


async def _plain(source: Iterable[T]) -> AsyncIterator[T]:
    for item in source:
        yield item
